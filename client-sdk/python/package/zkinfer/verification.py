"""Verification on this machine: no service, no trust in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import _verify
from .documents import NONCE_BYTES, Context, ContextNonce, Key, Statement, refusing
from .errors import VerifyError
from .jobs import JobRequest, Proof
from .models import ModelFacts
from .tensors import Array, Integers, Real

# Every profile, the default first.
ALL_PROFILES = ("default", "strict")


@dataclass(frozen=True)
class Acceptance:
    """Which parameters the caller accepts."""

    # Profiles whose built-in parameter sets the caller believes in; "strict" alone asks for proven security.
    profiles: Sequence[str] = ALL_PROFILES
    # Least bits of security of the one that the proof was made with; None: what the default profile promises.
    min_heuristic_bits: float | None = None
    min_proven_bits: float | None = None


@dataclass(frozen=True)
class Expectation:
    """What the caller expects a proof to be about."""

    # In real units as floats, or as the network's bytes as uint8.
    input: Array | None = None
    # Opens the commitment of an input that the statement does not show; None: it must be shown.
    input_salt: bytes | None = None
    # The model's commitment, from a source that the caller trusts.
    model_commitment: bytes | None = None

    def check(self, statement: Statement, key: Key) -> None:
        """Raises VerifyError, OTHER_MODEL or OTHER_INPUT."""
        if self.model_commitment is not None and self.model_commitment != key.model_commitment:
            message = f"the verifier key is of the model {key.model_commitment.hex()}, not of the expected {self.model_commitment.hex()}"
            raise VerifyError("OTHER_MODEL", message)
        if self.input is None:
            return
        expected = key.input.quantize(self.input)
        if statement.input is None and self.input_salt is None:
            raise VerifyError("OTHER_INPUT", "the statement hides its input; give the salt that it was committed with")
        commitment = _verify.input_commitment(expected, self.input_salt or bytes(NONCE_BYTES))
        if commitment != statement.input_commitment:
            raise VerifyError("OTHER_INPUT", "the statement is about another input than the expected one")


@dataclass(frozen=True)
class Verified:
    """A statement that was proved, about the model of this key."""

    statement: Statement
    key: Key

    @property
    def output(self) -> Real:
        """The output in the network's real units."""
        return self.key.output_real(self.statement)

    @property
    def output_integers(self) -> Integers:
        """The output as the program computed it: this is what was proved."""
        return self.key.output_integers(self.statement)


def verify_answer(proof: Proof, request: JobRequest) -> None:
    """Verifies what a service gave for a request, and that it is about the request's input and model where that can be told."""
    is_checkable = request.input_privacy == "public" or request.input_salt is not None
    registered = request.model.registered if isinstance(request.model, ModelFacts) else None
    commitment = None if registered is None else registered.model_commitment
    expectation = Expectation(request.input if is_checkable else None, request.input_salt, commitment)
    verified = verify_documents(proof.bytes, proof.statement.bytes, proof.key.bytes, request.context, Acceptance(), expectation)
    if request.input_privacy == "private" and verified.statement.input is not None:
        raise VerifyError("OTHER_INPUT", "the statement shows the input, which was to be private: do not hand it on")


def verify_documents(
    proof: bytes, statement: bytes, key: bytes, context: Context, acceptance: Acceptance, expectation: Expectation
) -> Verified:
    """Verifies bytes; raises VerifyError for the first rule of acceptance that does not hold."""
    nonce = ContextNonce.of(context).value
    accepted = _verify.Acceptance(list(acceptance.profiles), acceptance.min_heuristic_bits, acceptance.min_proven_bits, nonce)
    native_statement, native_key = refusing(lambda: _verify.verify(key, statement, proof, accepted))
    verified = Verified(Statement._of(statement, native_statement), Key._of(key, native_key))
    expectation.check(verified.statement, verified.key)
    return verified


def document_bytes(
    proof: Proof | bytes, statement: Statement | bytes | None, key: Key | bytes | None, *, needs_key: bool = True
) -> tuple[bytes, bytes, bytes]:
    """The bytes of proof, statement and key; the last two are those of the proof unless they are given."""
    if isinstance(proof, Proof):
        statement = proof.statement if statement is None else statement
        key = proof.key if key is None else key
    if statement is None or (key is None and needs_key):
        raise TypeError("a proof in bytes needs its statement and key")
    return (
        proof.bytes if isinstance(proof, Proof) else proof,
        statement.bytes if isinstance(statement, Statement) else statement,
        b"" if key is None else key.bytes if isinstance(key, Key) else key,
    )


def verify(
    proof: Proof | bytes,
    statement: Statement | bytes | None = None,
    key: Key | bytes | None = None,
    *,
    context: Context = None,
    expected_input: Array | None = None,
    input_salt: bytes | None = None,
    model_commitment: bytes | None = None,
    acceptance: Acceptance = Acceptance(),
) -> Verified:
    """Verifies on this machine, without any service: raises VerifyError, with the reason, unless the proof proves the statement.

    Statement and key are those of the proof unless they are given. `context` is the caller's own: a proof made for another is refused.
    `expected_input` is compared with what the statement is about, opened with `input_salt` where the statement hides it.
    `model_commitment` comes from a source that the caller trusts: without it, anybody's key of anybody's model is accepted.
    """
    expectation = Expectation(expected_input, input_salt, model_commitment)
    return verify_documents(*document_bytes(proof, statement, key), context, acceptance, expectation)
