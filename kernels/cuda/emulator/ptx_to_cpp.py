#!/usr/bin/env python3
"""Translates PTX to C++ for the emulator, so that what the compiler made of the kernels, inline PTX included, is executed too.

ptx_to_cpp.py IN.ptx > OUT.cpp. It stops with a message at any instruction that it does not know; it never guesses.
"""
import re
import sys

C_TYPES = {f"{kind}{bits}": f"{'' if kind == 's' else 'u'}int{bits}_t" for kind in "usb" for bits in (8, 16, 32, 64)} | {"pred": "bool"}
SPECIAL = {"tid": "threadIdx", "ctaid": "blockIdx", "ntid": "blockDim", "nctaid": "gridDim"}
COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
ATOMICS = {"min": "atomicMin", "max": "atomicMax"}
SYMBOL = re.compile(
    r"^\s*(?:\.(?:visible|extern)\s+)?\.(const|global|shared)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)(?:\[(\d*)\])?"
    r"\s*(?:=\s*(\{[^}]*\}|[^;]+))?;",
    re.M,
)


def bits(type_name):
    return int(type_name[1:])


def unsigned(type_name):
    return "u" + type_name[1:]


def split(text):
    """Operands, at the commas outside of braces and brackets."""
    parts, depth, part = [], 0, ""
    for character in text:
        depth += (character in "{[") - (character in "}]")
        if character == "," and not depth:
            parts.append(part.strip())
            part = ""
        else:
            part += character
    return parts + [part.strip()] if part.strip() else parts


def c_name(register):
    return "v_" + register.replace("%", "").replace("$", "_")


class Kernel:
    """One entry: its registers by scope, and the statements made so far."""

    def __init__(self, name, parameters, symbols):
        self.name, self.symbols = name, dict(symbols)
        self.parameters, self.parameter_bytes = {}, []
        for index, parameter in enumerate(part for part in parameters.split(",") if part.strip()):
            found = re.search(r"\.(\w+)\s+([\w$]+)(?:\[(\d+)\])?\s*$", parameter.strip())
            self.parameters[found[2]] = index
            self.parameter_bytes.append(int(found[3]) if found[3] else bits(found[1]) // 8)
        self.scopes, self.n_scopes = [{}], 0
        self.declarations, self.code = [], []

    def die(self, message):
        sys.exit(f"ptx_to_cpp: {self.name}: {message}")

    def register(self, name):
        return next((scope[name] for scope in reversed(self.scopes) if name in scope), None)

    def value(self, operand, type_name=None):
        operand = operand.strip()
        if re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)U?", operand):
            text = operand.rstrip("U") + ("ll" if operand.startswith("-") else "ull")
        elif found := re.fullmatch(r"%(tid|ctaid|ntid|nctaid)\.([xyz])", operand):
            text = f"{SPECIAL[found[1]]}.{found[2]}"
        elif operand == "%laneid":
            text = "(BLOCK->current->linear & 31)"
        elif self.register(operand):
            text = self.register(operand)
        elif operand in self.symbols:
            kind, size = self.symbols[operand]
            dynamic = "shared_offset(shared_dynamic())"
            text = f"(uint64_t)&{operand}[0]" if kind == "global" else dynamic if size is None else f"shared_offset(shared_array(&key_{operand}, {size}))"
        else:
            self.die(f"operand {operand}")
        return f"({C_TYPES[type_name]})({text})" if type_name else f"({text})"

    def target(self, operand):
        if operand == "_":
            return "[[maybe_unused]] uint64_t sink"
        return self.register(operand) or self.die(f"destination {operand}")

    def address(self, operand):
        found = re.fullmatch(r"\[\s*([%\w$.]+)\s*(?:\+\s*(-?\w+))?\s*\]", operand) or self.die(f"address {operand}")
        return found[1], int(found[2] or "0", 0)

    # Every method below returns the statement of one instruction: `parts` is the opcode at its dots, `a` are the operands.

    def sum(self, parts, a):
        base, type_name = parts[0], unsigned(parts[-1])
        x, y = self.value(a[1], type_name), self.value(a[2], type_name)
        sets, takes = "cc" in parts, base.endswith("c")
        if not sets and not takes:
            return f"{self.target(a[0])} = {x} {'+' if base == 'add' else '-'} {y};"
        call = f"{base[:3]}_carry<{C_TYPES[type_name]}>({x}, {y}, {'carry' if takes else 'false'}, out)"
        return f"{{ bool out; {self.target(a[0])} = {call};{' carry = out;' if sets else ''} }}"

    def product(self, parts, a):
        base, type_name = parts[0], parts[-1]
        if parts[1] == "wide":
            wide = C_TYPES[type_name[0] + str(bits(type_name) * 2)]
            text = f"({wide}){self.value(a[1], type_name)} * ({wide}){self.value(a[2], type_name)}"
            return f"{self.target(a[0])} = {text}" + (f" + ({wide}){self.value(a[3])};" if base == "mad" else ";")
        plain = unsigned(type_name)
        if parts[1] == "lo":
            text = f"(({C_TYPES[plain]})({self.value(a[1], plain)} * {self.value(a[2], plain)}))"
        else:
            text = f"(({C_TYPES[plain]})high_product({self.value(a[1], type_name)}, {self.value(a[2], type_name)}))"
        if base == "mul":
            return f"{self.target(a[0])} = {text};"
        call = f"add_carry<{C_TYPES[plain]}>({text}, {self.value(a[3], plain)}, {'carry' if base == 'madc' else 'false'}, out)"
        return f"{{ bool out; {self.target(a[0])} = {call};{' carry = out;' if 'cc' in parts else ''} }}"

    def logic(self, parts, a):
        sign, type_name = {"and": "&", "or": "|", "xor": "^"}[parts[0]], parts[-1]
        return f"{self.target(a[0])} = {self.value(a[1], type_name)} {sign} {self.value(a[2], type_name)};"

    def unary(self, parts, a):
        type_name = parts[-1]
        if parts[0] == "neg":
            return f"{self.target(a[0])} = 0 - {self.value(a[1], unsigned(type_name))};"
        return f"{self.target(a[0])} = {'!' if type_name == 'pred' else '~'}{self.value(a[1], type_name)};"

    def shift(self, parts, a):
        type_name = parts[-1] if parts[-1][0] == "s" and parts[0] == "shr" else unsigned(parts[-1])
        function = "shift_left" if parts[0] == "shl" else "shift_right"
        return f"{self.target(a[0])} = {function}<{C_TYPES[type_name]}>({self.value(a[1], type_name)}, {self.value(a[2], 'u32')});"

    def funnel(self, parts, a):
        count = f"({self.value(a[3], 'u32')} & 31)" if parts[2] == "wrap" else f"std::min({self.value(a[3], 'u32')}, 32u)"
        both = f"((uint64_t){self.value(a[2], 'u32')} << 32 | {self.value(a[1], 'u32')})"
        return f"{self.target(a[0])} = (uint32_t)({both} << {count} >> 32);" if parts[1] == "l" else f"{self.target(a[0])} = (uint32_t)({both} >> {count});"

    def extreme(self, parts, a):
        return f"{self.target(a[0])} = std::{parts[0]}<{C_TYPES[parts[-1]]}>({self.value(a[1], parts[-1])}, {self.value(a[2], parts[-1])});"

    def division(self, parts, a):
        return f"{self.target(a[0])} = {self.value(a[1], parts[-1])} {'/' if parts[0] == 'div' else '%'} {self.value(a[2], parts[-1])};"

    def compare(self, parts, a):
        type_name = parts[-1]
        text = f"({self.value(a[1], type_name)} {COMPARISONS[parts[1]]} {self.value(a[2], type_name)})"
        if parts[2] in ("and", "or", "xor"):
            sign = {"and": "&", "or": "|", "xor": "^"}[parts[2]]
            text += f" {sign} " + (f"!{self.value(a[3][1:])}" if a[3].startswith("!") else self.value(a[3]))
        elif len(parts) > 3:
            self.die(".".join(parts))
        return f"{self.target(a[0])} = {text};"

    def select(self, parts, a):
        return f"{self.target(a[0])} = {self.value(a[3])} ? {self.value(a[1], parts[-1])} : {self.value(a[2], parts[-1])};"

    def convert(self, parts, a):
        if len(parts) != 3 or parts[1] not in C_TYPES:
            self.die(".".join(parts))
        return f"{self.target(a[0])} = ({C_TYPES[parts[1]]}){self.value(a[1], parts[-1])};"

    def convert_address(self, parts, a):
        space = parts[2] if parts[1] == "to" else parts[1]
        if space != "shared":
            return f"{self.target(a[0])} = {self.value(a[1])};"
        if parts[1] == "to":
            return f"{self.target(a[0])} = shared_offset((char*){self.value(a[1])});"
        return f"{self.target(a[0])} = (uint64_t)(BLOCK->shared + (uint32_t){self.value(a[1])});"

    def move(self, parts, a):
        type_name = parts[-1]
        if a[0].startswith("{"):
            targets = split(a[0][1:-1])
            size = bits(type_name) // len(targets)
            pieces = [f"{self.target(target)} = ({C_TYPES[f'u{size}']})(whole >> {size * i});" for i, target in enumerate(targets)]
            return f"{{ uint64_t whole = {self.value(a[1], type_name)}; {' '.join(pieces)} }}"
        if a[1].startswith("{"):
            sources = split(a[1][1:-1])
            size = bits(type_name) // len(sources)
            pieces = [f"({C_TYPES[type_name]}){self.value(source, f'u{size}')} << {size * i}" for i, source in enumerate(sources)]
            return f"{self.target(a[0])} = {' | '.join(pieces)};"
        return f"{self.target(a[0])} = {self.value(a[1]) if type_name == 'pred' else self.value(a[1], type_name)};"

    def memory(self, parts, a):
        type_name, stores = parts[-1], parts[0] == "st"
        space = next((part for part in parts[1:] if part in ("param", "global", "shared", "local", "const")), "generic")
        width = 4 if "v4" in parts else 2 if "v2" in parts else 1
        place, operand = (a[0], a[1]) if stores else (a[1], a[0])
        base, offset = self.address(place)
        size, operands = bits(type_name) // 8, split(operand[1:-1]) if operand.startswith("{") else [operand]
        if space == "param":
            if width > 1:
                self.die("vector parameter")
            return f"memcpy(&{self.target(operands[0])}, (char*)arguments[{self.parameters[base]}] + {offset}, {size});"
        begin, statements = self.value(base), []
        if width > 1:
            statements.append(f'if (({begin} + {offset}) % {size * width}) fail("misaligned vector access");')
        for index, operand in enumerate(operands):
            at = offset + index * size
            shared = f"shared_word<{C_TYPES[type_name]}>((uint32_t){begin} + {at})"
            word = shared if space == "shared" else f"global_word<{C_TYPES[type_name]}>({begin} + {at})"
            statements.append(f"{word} = {self.value(operand, type_name)};" if stores else f"{self.target(operand)} = {word};")
        return f"{{ {' '.join(statements)} }}"

    def shuffle(self, parts, a):
        target, _, predicate = a[0].partition("|")
        mode = {"up": 0, "down": 1, "bfly": 2, "idx": 3}[parts[2]]
        values = ", ".join(self.value(operand, "b32") for operand in a[1:5])
        after = f" {self.target(predicate)} = inside;" if predicate else ""
        return f"{{ bool inside; {self.target(target)} = shuffle({mode}, {values}, inside);{after} }}"

    def barrier(self, parts, a):
        if parts[1:] == ["warp", "sync"]:
            return f"synchronize_warp({self.value(a[0], 'u32')});"
        if a != ["0"]:
            self.die("named barrier")
        return "synchronize_block();"

    def atomic(self, parts, a):
        a = ["_"] + a if parts[0] == "red" else a
        name = next((part for part in parts if part in ATOMICS), None) or self.die(".".join(parts))
        base, offset = self.address(a[1])
        type_name = C_TYPES[parts[-1]]
        word = f"shared_word<{type_name}>((uint32_t)" if "shared" in parts else f"global_word<{type_name}>("
        call = f"{ATOMICS[name]}<{type_name}>(&{word}{self.value(base)} + {offset}), {self.value(a[2], parts[-1])})"
        return f"{call};" if a[0] == "_" else f"{self.target(a[0])} = {call};"

    def field(self, parts, a):
        type_name = parts[-1]
        if parts[0] == "bfi":
            values = [self.value(a[1], type_name), self.value(a[2], type_name), self.value(a[3], "u32"), self.value(a[4], "u32")]
            return f"{self.target(a[0])} = insert_field<{C_TYPES[type_name]}>({', '.join(values)});"
        if type_name[0] != "u":
            self.die(".".join(parts))
        values = [self.value(a[1], type_name), self.value(a[2], "u32"), self.value(a[3], "u32")]
        return f"{self.target(a[0])} = extract_field<{C_TYPES[type_name]}>({', '.join(values)});"

    def reverse(self, parts, a):
        if bits(parts[-1]) != 32:
            self.die(".".join(parts))
        return f"{self.target(a[0])} = __brev({self.value(a[1], parts[-1])});"

    def bytes(self, parts, a):
        if len(parts) != 2:
            self.die(".".join(parts))
        return f"{self.target(a[0])} = permute_bytes({', '.join(self.value(operand, parts[-1]) for operand in a[1:4])});"

    def table(self, parts, a):
        return f"{self.target(a[0])} = look_up({', '.join(self.value(operand, parts[-1]) for operand in a[1:4])}, {a[4]});"

    def instruction(self, opcode, a):
        parts = opcode.split(".")
        methods = {
            ("add", "sub", "addc", "subc"): self.sum,
            ("mul", "mad", "madc"): self.product,
            ("and", "or", "xor"): self.logic,
            ("not", "neg"): self.unary,
            ("shl", "shr"): self.shift,
            ("shf",): self.funnel,
            ("min", "max"): self.extreme,
            ("div", "rem"): self.division,
            ("setp",): self.compare,
            ("selp",): self.select,
            ("cvt",): self.convert,
            ("cvta",): self.convert_address,
            ("mov",): self.move,
            ("ld", "ldu", "st"): self.memory,
            ("shfl",): self.shuffle,
            ("bar", "barrier"): self.barrier,
            ("atom", "red"): self.atomic,
            ("bfi", "bfe"): self.field,
            ("brev",): self.reverse,
            ("prmt",): self.bytes,
            ("lop3",): self.table,
            ("ret", "exit"): lambda parts, a: "return;",
        }
        method = next((method for names, method in methods.items() if parts[0] in names), None)
        return method(parts, a) if method else self.die(f"unknown instruction {opcode} {a}")

    def declare(self, statement):
        found = re.match(r"\.reg\s+\.(\w+)\s+(.*)", statement, re.S)
        type_name = "bool" if found[1] == "pred" else C_TYPES[unsigned(found[1])]
        suffix = f"_s{self.n_scopes}" if len(self.scopes) > 1 else ""
        for variable in (part.strip() for part in found[2].split(",")):
            counted = re.fullmatch(r"(%?[\w$]+)<(\d+)>", variable)
            for name in [f"{counted[1]}{i}" for i in range(int(counted[2]))] if counted else [variable]:
                self.scopes[-1][name] = c_name(name) + suffix
                self.declarations.append((type_name, c_name(name) + suffix))

    def statement(self, statement):
        if statement == "{":
            self.scopes.append({})
            self.n_scopes += 1
        elif statement == "}":
            self.scopes.pop()
        elif statement.startswith(".reg"):
            self.declare(statement)
        elif found := re.match(r"\.shared\s+\.align\s+\d+\s+\.b8\s+([\w$]+)\[(\d+)\]", statement):
            self.symbols[found[1]] = ("shared", int(found[2]))
            self.code.append(f"static char key_{found[1]};")
        elif found := re.match(r"([\w$]+):\s*(.*)", statement, re.S):
            self.code.append(found[1].replace("$", "_") + ":;")
            self.statement(found[2])
        elif statement and not statement.startswith((".pragma", ".loc")):
            self.guarded(statement)

    def guarded(self, statement):
        guard = re.match(r"@(!?)(%?[\w$]+)\s+(.*)", statement, re.S)
        prefix = f"if ({guard[1]}{self.register(guard[2])}) " if guard else ""
        found = re.match(r"([a-z][\w.:]*)\s*(.*)", guard[3] if guard else statement, re.S) or self.die(f"cannot read {statement}")
        opcode, operands = found[1].replace("::", "_"), split(found[2])
        for qualifier in (".uni", ".volatile", ".nc", ".relaxed", ".gpu"):
            opcode = opcode.replace(qualifier, "")
        label = operands[0].replace("$", "_") if opcode == "bra" else None
        self.code.append(prefix + (f"goto {label};" if label else self.instruction(opcode, operands)))

    def text(self):
        by_type = {}
        for type_name, name in self.declarations:
            by_type.setdefault(type_name, []).append(f"{name} = 0")
        lines = [f"static void {self.name}_ptx([[maybe_unused]] void** arguments) {{ [[maybe_unused]] bool carry = false;"]
        lines += [f"  [[maybe_unused]] {type_name} {', '.join(names)};" for type_name, names in by_type.items()]
        lines += [f"  {line}" for line in self.code] + ["  return; }"]
        sizes = ", ".join(map(str, self.parameter_bytes))
        lines.append(f'static const bool {self.name}_is_added = add_translated("{self.name}", {{{sizes}}}, {self.name}_ptx);')
        return "\n".join(lines)


def statements(body):
    """Statements of a kernel; braces of scopes stand alone, those of vectors stay inside a statement."""
    current = ""
    for token in re.findall(r"[^;{}\n]+|[;{}\n]", body):
        if token == "\n":
            current += " " if current.strip() else ""
        elif token in "{}" and not current.strip():
            current = ""
            yield token
        elif token == ";":
            yield current.strip()
            current = ""
        else:
            current += token


def closing_brace(source, begin):
    depth, at = 1, begin
    while depth:
        depth += {"{": 1, "}": -1}.get(source[at], 0)
        at += 1
    return at - 1


def main():
    source = re.sub(r"/\*.*?\*/", "", re.sub(r"//[^\n]*", "", open(sys.argv[1]).read()), flags=re.S)
    print('#include "ptx.h"\nnamespace {')
    symbols = {}
    for found in SYMBOL.finditer(source):
        space, align, type_name, name, length, initial = found.groups()
        before = source[: found.start()]
        if before.count("{") != before.count("}"):
            continue
        if space == "shared":
            symbols[name] = ("shared", int(length) * bits(type_name) // 8 if length else None)
            print(f"[[maybe_unused]] char key_{name};")
        else:
            symbols[name] = ("global", None)
            print(f"alignas({align or 8}) {C_TYPES[type_name]} {name}[{length or 1}] = {initial or '{}'};")
    print("}")
    for entry in re.finditer(r"\.entry\s+([\w$]+)\s*\((.*?)\)([^{]*)\{", source, re.S):
        kernel = Kernel(entry[1], entry[2], symbols)
        for statement in statements(source[entry.end() : closing_brace(source, entry.end())]):
            kernel.statement(statement)
        print(kernel.text())


main()
