"""Statements and keys: what a verifier reads, without any service."""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from . import _verify
from .errors import VerifyError
from .tensors import Integers, Real, Tensor

T = TypeVar("T")

NONCE_BYTES = 32


@dataclass(frozen=True)
class ContextNonce:
    """Binds a proof to one use of it: 32 bytes, four little-endian words below 2^64 - 2^32 + 1."""

    value: bytes

    def __post_init__(self) -> None:
        if len(self.value) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes, this one {len(self.value)}")

    @classmethod
    def of(cls, context: Context) -> ContextNonce:
        """The nonce of a context of any length, such as a challenge or a contract's name: its hash. Of None: zero, no context."""
        if isinstance(context, ContextNonce):
            return context
        if context is None:
            return cls(bytes(NONCE_BYTES))
        return cls(_verify.context_nonce(context.encode() if isinstance(context, str) else context))


Context = ContextNonce | bytes | str | None


def random_words() -> bytes:
    """32 random bytes that are four words below 2^63: a fresh nonce's value, or a salt."""
    words = bytearray(os.urandom(NONCE_BYTES))
    for last in range(7, NONCE_BYTES, 8):
        words[last] &= 0x7F
    return bytes(words)


@dataclass(frozen=True)
class Statement:
    """What a proof states: this registered model, on this input, gave this output, for this use. Proved is it once `verify` accepts it."""

    # The canonical bytes.
    bytes: builtins.bytes
    # Which parameter set.
    parameters_id: builtins.bytes
    # Digest of the public program.
    program_digest: builtins.bytes
    # Commitment to program and weights.
    model_commitment: builtins.bytes
    # The input as the network reads it; None: the statement has only its commitment.
    input: builtins.bytes | None
    # Commitment to the input; of one that is shown, with salt zero.
    input_commitment: builtins.bytes
    # The integers that the program computed.
    outputs: tuple[int, ...]
    # The use that the proof is made for.
    context_nonce: ContextNonce

    @classmethod
    def from_bytes(cls, data: builtins.bytes) -> Statement:
        """Reads canonical bytes; raises VerifyError for others."""
        return cls._of(data, refusing(lambda: _verify.read_statement(data)))

    @classmethod
    def _of(cls, data: builtins.bytes, native: _verify.Statement) -> Statement:
        return cls(
            bytes=data,
            parameters_id=native.parameters_id,
            program_digest=native.program_digest,
            model_commitment=native.model_commitment,
            input=native.input,
            input_commitment=native.input_commitment,
            outputs=tuple(native.outputs),
            context_nonce=ContextNonce(native.context_nonce),
        )


@dataclass(frozen=True)
class Key:
    """The verifier key of a registered model.

    The names, the scales and the shapes of input and output are what the key's writer says; nothing proves them.
    """

    # The canonical bytes.
    bytes: builtins.bytes
    # Profile of the parameter set: "default" or "strict".
    profile: str
    parameters_id: builtins.bytes
    # Commitment to program and weights: compare it with one from a source that you trust.
    model_commitment: builtins.bytes
    layers: int
    multiply_accumulates: int
    input: Tensor
    output: Tensor

    @classmethod
    def from_bytes(cls, data: builtins.bytes) -> Key:
        """Reads canonical bytes; raises VerifyError for others."""
        return cls._of(data, refusing(lambda: _verify.read_key(data)))

    @classmethod
    def _of(cls, data: builtins.bytes, native: _verify.Key) -> Key:
        return cls(
            bytes=data,
            profile=native.profile,
            parameters_id=native.parameters_id,
            model_commitment=native.model_commitment,
            layers=native.layers,
            multiply_accumulates=native.multiply_accumulates,
            input=_tensor(native.input),
            output=_tensor(native.output),
        )

    def output_integers(self, statement: Statement) -> Integers:
        """The output of a statement, as the program computed it."""
        return self.output.integers(statement.outputs)

    def output_real(self, statement: Statement) -> Real:
        """The output of a statement in the network's real units."""
        return self.output.real(statement.outputs)


def _tensor(native: tuple[str, list[int], float, int]) -> Tensor:
    name, shape, scale, zero_point = native
    return Tensor(name, tuple(shape), scale, zero_point)


def refusing(call: Callable[[], T]) -> T:
    """Calls the native module; its refusals become VerifyError."""
    try:
        return call()
    except _verify.Refusal as refusal:
        reason, message = refusal.args
    raise VerifyError(reason, message)
