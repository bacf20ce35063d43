from typing import final

class Refusal(Exception):
    args: tuple[str, str]

@final
class Acceptance:
    def __new__(cls, profiles: list[str], heuristic_bits: float | None, proven_bits: float | None, context_nonce: bytes) -> Acceptance: ...

@final
class Statement:
    parameters_id: bytes
    program_digest: bytes
    model_commitment: bytes
    input: bytes | None
    input_commitment: bytes
    outputs: list[int]
    context_nonce: bytes

@final
class Key:
    profile: str
    parameters_id: bytes
    model_commitment: bytes
    layers: int
    multiply_accumulates: int
    input: tuple[str, list[int], float, int]
    output: tuple[str, list[int], float, int]

@final
class Blake3:
    def __new__(cls) -> Blake3: ...
    def update(self, data: bytes) -> None: ...
    def digest(self) -> bytes: ...

def crc32c(data: bytes) -> int: ...
def context_nonce(context: bytes) -> bytes: ...
def input_commitment(input: bytes, salt: bytes) -> bytes: ...
def read_statement(data: bytes) -> Statement: ...
def read_key(data: bytes) -> Key: ...
def verify(key: bytes, statement: bytes, proof: bytes, acceptance: Acceptance) -> tuple[Statement, Key]: ...
