//! Hostile ONNX files get their error within bounded memory. One test in its own process: it reads the process's peak.
#![cfg(all(feature = "prover", target_os = "linux"))]

use std::time::Instant;

use zkinfer_circuits::model::{ImportError, ImportLimits, import_onnx};

/// What the C library's allocator maps for a moment when it starts an arena for a thread.
const ARENA_BYTES: usize = 64 << 20;

/// A figure of this process in bytes: `VmPeak` or `VmSize` (address space, so that reserved memory counts, touched or not).
fn memory(figure: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(figure)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Field `number` of wire type 2.
fn field(number: usize, content: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(content.len()), content.to_vec()].concat()
}

/// A file with this graph and opset 17.
fn file(graph: &[u8]) -> Vec<u8> {
    [field(7, graph), field(8, &[0x10, 17])].concat()
}

/// A value of shape `[1, n]`.
fn value_info(name: &str, n: usize) -> Vec<u8> {
    let dim = |size: usize| field(1, &[vec![0x08], varint(size)].concat());
    let shape = field(2, &[dim(1), dim(n)].concat());
    [field(1, name.as_bytes()), field(2, &field(1, &[vec![0x08, 1], shape].concat()))].concat()
}

fn node(op_type: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = inputs.iter().flat_map(|input| field(1, input.as_bytes())).collect();
    bytes.extend(field(2, output.as_bytes()));
    bytes.extend(field(4, op_type.as_bytes()));
    field(1, &bytes)
}

/// Asserts the error, and that importing took at most `limit` bytes and a few seconds.
fn refuses(what: &str, bytes: &[u8], limits: &ImportLimits, limit: usize) -> ImportError {
    let (before, start) = (memory("VmSize"), Instant::now());
    let error = import_onnx(bytes, limits).unwrap_err();
    // The peak is that of the whole process: cases come in the order of the memory they take.
    let grown = memory("VmPeak").saturating_sub(before);
    assert!(grown <= limit, "{what}: {grown} bytes, more than {limit}");
    assert!(start.elapsed().as_secs() < 20, "{what}: {:?}", start.elapsed());
    error
}

#[test]
fn hostile_files_stay_within_the_stated_memory() {
    let limits = ImportLimits::default();
    let stated = |file_bytes: usize, items: usize, parameters: usize| 32 * file_bytes + 600 * items + 16 * parameters + ARENA_BYTES;

    // A shape of 2^40 elements in a file of a few bytes.
    let huge = [vec![0x08], varint(1 << 20), vec![0x08], varint(1 << 20), vec![0x10, 1], field(8, b"w")].concat();
    let gemm = node("MatMul", &["x", "w"], "y");
    let boundary = [field(11, &value_info("x", 2)), field(12, &value_info("y", 2))].concat();
    let bytes = file(&[gemm, field(5, &huge), boundary.clone()].concat());
    let error = refuses("huge shape", &bytes, &limits, stated(bytes.len(), 20, 0));
    let shape = vec![1 << 20, 1 << 20];
    assert_eq!(error, ImportError::TensorShape { name: "w".into(), shape, limit: limits.max_tensor_elements });

    // A chain of a thousand uses of one matrix of 2^16 weights: 2^26 weights if each use were a copy.
    let weights =
        [varint(1 << 3), varint(256), varint(1 << 3), varint(256), vec![0x10, 1], field(8, b"w"), field(9, &[0; 1 << 18])].concat();
    let name = |index: usize| {
        if index == 0 {
            "x".to_owned()
        } else if index == 1000 {
            "y".to_owned()
        } else {
            format!("h{index}")
        }
    };
    let chain: Vec<u8> = (0..1000).flat_map(|index| node("MatMul", &[&name(index), "w"], &name(index + 1))).collect();
    let wide = [field(11, &value_info("x", 256)), field(12, &value_info("y", 256))].concat();
    let bytes = file(&[chain, field(5, &weights), wide].concat());
    let few = ImportLimits { max_parameters: 1 << 20, ..limits };
    let error = refuses("shared matrix", &bytes, &few, stated(bytes.len(), 5010, 1 << 20));
    assert_eq!(error, ImportError::TooMany { what: "parameters", limit: 1 << 20 });

    // A million empty messages of two bytes each: nodes, attributes of one node, initializers, names.
    let many = |number: usize| field(number, &[]).repeat(1 << 20);
    let too_many_items = ImportError::TooMany { what: "messages and names", limit: limits.max_items };
    let too_many_nodes = ImportError::TooMany { what: "nodes", limit: limits.max_nodes };
    let cases = [
        ("empty nodes", file(&many(1)), too_many_nodes),
        ("empty attributes", file(&field(1, &many(5))), too_many_items.clone()),
        ("empty tensors", file(&many(5)), too_many_items.clone()),
        ("empty names", file(&field(1, &many(1))), too_many_items),
    ];
    for (what, bytes, expected) in cases {
        assert_eq!(refuses(what, &bytes, &limits, ARENA_BYTES), expected);
    }

    // As many empty tensors as are allowed, and as many numbers of one byte.
    let bytes = file(&[field(5, &[]).repeat(limits.max_items - 10), boundary.clone()].concat());
    let error = refuses("allowed tensors", &bytes, &limits, stated(bytes.len(), limits.max_items, 0));
    assert_eq!(error, ImportError::TooMany { what: "messages and names", limit: limits.max_items });
    let bytes = file(&[field(5, &[]).repeat(limits.max_items - 20), boundary.clone()].concat());
    let error = refuses("allowed tensors", &bytes, &limits, stated(bytes.len(), limits.max_items, 0));
    assert_eq!(error, ImportError::DuplicateName { name: String::new() });
    let integers = [varint(1 << 3), varint(1 << 22), vec![0x10, 7], field(8, b"w"), field(7, &[1; 1 << 22])].concat();
    let relu = node("Reshape", &["x", "w"], "y");
    let bytes = file(&[relu, field(5, &integers), boundary].concat());
    let error = refuses("small integers", &bytes, &limits, stated(bytes.len(), 20, 0));
    assert!(error.to_string().contains("the target shape must be int64, of at most 8 dimensions"), "{error}");
}
