"""Proofs of the real service, verified here and there, and lies about them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import zkinfer
from conftest import CANCER, CONTEXT
from zkinfer.verification import verify_answer


def refusal(*arguments: object, **options: object) -> str:
    """The reason for which a proof is refused."""
    with pytest.raises(zkinfer.VerifyError) as caught:
        zkinfer.verify(*arguments, **options)  # type: ignore[arg-type]
    assert caught.value.message
    return caught.value.reason


def flipped(data: bytes, at: int) -> bytes:
    """The bytes with one changed."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def test_a_proof_is_accepted_here_and_by_the_service(client: zkinfer.Client, proof: zkinfer.Proof, model: zkinfer.Model) -> None:
    verified = zkinfer.verify(proof, context=CONTEXT)
    assert verified.statement == proof.statement
    assert verified.key == proof.key
    assert client.verify_remote(proof, context=CONTEXT) == proof.statement
    assert client.verify_remote(proof, model=model, context=CONTEXT) == proof.statement
    assert client.verify_remote(proof.bytes, proof.statement.bytes, model="cancer", context=CONTEXT) == proof.statement


def test_bytes_are_enough(proof: zkinfer.Proof, model: zkinfer.Model) -> None:
    assert model.registered is not None
    commitment = model.registered.model_commitment
    verified = zkinfer.verify(proof.bytes, proof.statement.bytes, model.key().bytes, context=CONTEXT, model_commitment=commitment)
    assert verified.output_integers.tolist() == proof.output_integers.tolist()


def test_the_output_is_that_of_the_network(proof: zkinfer.Proof) -> None:
    expected = np.load(CANCER / "outputs_uint8_per_channel_qdq.npy")[0]
    step = proof.key.output.scale
    assert proof.output.dtype == np.float64 and proof.output_integers.dtype == np.int64
    assert proof.output.size == expected.size
    np.testing.assert_allclose(proof.output.ravel(), expected.ravel(), atol=1.001 * step)
    np.testing.assert_array_equal(proof.output, proof.output_integers * step)
    assert proof.output.argmax() == expected.argmax()


def test_the_statement_shows_the_quantized_input(proof: zkinfer.Proof, samples: np.ndarray) -> None:
    assert proof.statement.input == proof.key.input.quantize(samples[:1])
    assert zkinfer.verify(proof, context=CONTEXT, expected_input=samples[:1])
    quantized = np.frombuffer(proof.key.input.quantize(samples[:1]), dtype=np.uint8)
    assert zkinfer.verify(proof, context=CONTEXT, expected_input=quantized)
    assert refusal(proof, context=CONTEXT, expected_input=samples[1:2]) == "OTHER_INPUT"


def test_bytes_are_proved_like_the_floats_that_they_stand_for(
    client: zkinfer.Client, model: zkinfer.Model, proof: zkinfer.Proof, samples: np.ndarray
) -> None:
    quantized = np.frombuffer(proof.key.input.quantize(samples[:1]), dtype=np.uint8)
    other = client.prove("cancer", quantized)
    assert other.statement.outputs == proof.statement.outputs
    assert other.statement.input == proof.statement.input
    # Made for no use in particular, thus refused for this one.
    assert refusal(other, context=CONTEXT) == "OTHER_NONCE"


@pytest.mark.parametrize("at", [0, 40, 20_000, -1])
def test_a_changed_proof_is_refused(proof: zkinfer.Proof, at: int) -> None:
    assert refusal(flipped(proof.bytes, at), proof.statement, proof.key, context=CONTEXT) == "PROOF_INVALID"


def test_a_cut_proof_is_refused(proof: zkinfer.Proof) -> None:
    for cut in (b"", proof.bytes[:-1], proof.bytes + b"\0"):
        assert refusal(cut, proof.statement, proof.key, context=CONTEXT) == "PROOF_INVALID"


def test_another_statement_is_refused(proof: zkinfer.Proof) -> None:
    statement = proof.statement.bytes
    commitments = {6: "OTHER_PARAMETERS", 6 + 32: "OTHER_PROGRAM", 6 + 64: "OTHER_MODEL"}
    for at, reason in commitments.items():
        assert refusal(proof.bytes, flipped(statement, at), proof.key, context=CONTEXT) == reason
    # The first byte of the last output stands before predicate and nonce.
    assert refusal(proof.bytes, flipped(statement, -33 - 8), proof.key, context=CONTEXT) == "PROOF_INVALID"
    assert refusal(proof.bytes, flipped(statement, 0), proof.key, context=CONTEXT) == "STATEMENT_ENCODING"
    assert refusal(proof.bytes, statement[:-1], proof.key, context=CONTEXT) == "STATEMENT_ENCODING"


def test_another_context_is_refused_here_and_by_the_service(client: zkinfer.Client, proof: zkinfer.Proof) -> None:
    assert refusal(proof, context="another") == "OTHER_NONCE"
    assert refusal(proof) == "OTHER_NONCE"
    with pytest.raises(zkinfer.VerifyError, match="OTHER_NONCE"):
        client.verify_remote(proof, context="another")


def test_another_model_is_refused_here_and_by_the_service(client: zkinfer.Client, proof: zkinfer.Proof, float_model: zkinfer.Model) -> None:
    assert refusal(proof, key=float_model.key(), context=CONTEXT) in ("OTHER_PROGRAM", "OTHER_MODEL")
    with pytest.raises(zkinfer.VerifyError, match=r"OTHER_PROGRAM|OTHER_MODEL"):
        client.verify_remote(proof, model=float_model, context=CONTEXT)
    assert float_model.registered is not None
    expected = float_model.registered.model_commitment
    assert refusal(proof, context=CONTEXT, model_commitment=expected) == "OTHER_MODEL"


def test_a_service_that_answers_about_something_else_is_noticed(
    proof: zkinfer.Proof, model: zkinfer.Model, float_model: zkinfer.Model, samples: np.ndarray
) -> None:
    asked = zkinfer.JobRequest(model, samples[:1], context=CONTEXT)
    verify_answer(proof, asked)
    others = {
        "OTHER_MODEL": dataclasses.replace(asked, model=float_model),
        "OTHER_INPUT": dataclasses.replace(asked, input=samples[1:2]),
        "OTHER_NONCE": dataclasses.replace(asked, context="another"),
    }
    # Its input is not to be handed on.
    shown = dataclasses.replace(asked, input_privacy="private")
    for reason, other in [*others.items(), ("OTHER_INPUT", shown)]:
        with pytest.raises(zkinfer.VerifyError) as caught:
            verify_answer(proof, other)
        assert caught.value.reason == reason


def test_the_service_refuses_a_changed_proof(client: zkinfer.Client, proof: zkinfer.Proof) -> None:
    changed = dataclasses.replace(proof, bytes=flipped(proof.bytes, 20_000))
    with pytest.raises(zkinfer.VerifyError) as caught:
        client.verify_remote(changed, context=CONTEXT)
    assert caught.value.reason == "PROOF_INVALID"


def test_only_accepted_profiles_are_accepted(proof: zkinfer.Proof) -> None:
    assert proof.key.profile == "default"
    strict = zkinfer.Acceptance(profiles=["strict"])
    assert refusal(proof, context=CONTEXT, acceptance=strict) == "UNKNOWN_PARAMETERS"
    demanding = zkinfer.Acceptance(min_proven_bits=85)
    assert refusal(proof, context=CONTEXT, acceptance=demanding) == "WEAK_PARAMETERS"
    with pytest.raises(ValueError, match="neither"):
        zkinfer.verify(proof, acceptance=zkinfer.Acceptance(profiles=["weak"]))
    with pytest.raises(ValueError, match="numbers"):
        zkinfer.verify(proof, acceptance=zkinfer.Acceptance(min_proven_bits=float("nan")))


def test_a_private_input_is_hidden_and_opened_by_its_salt(client: zkinfer.Client, model: zkinfer.Model, samples: np.ndarray) -> None:
    salt = zkinfer.random_words()
    proof = client.prove(model, samples[2:3], input_privacy="private", input_salt=salt, context=CONTEXT)
    assert proof.statement.input is None
    assert zkinfer.verify(proof, context=CONTEXT, expected_input=samples[2:3], input_salt=salt)
    assert refusal(proof, context=CONTEXT, expected_input=samples[3:4], input_salt=salt) == "OTHER_INPUT"
    assert refusal(proof, context=CONTEXT, expected_input=samples[2:3], input_salt=zkinfer.random_words()) == "OTHER_INPUT"
    assert refusal(proof, context=CONTEXT, expected_input=samples[2:3]) == "OTHER_INPUT"


def test_a_proof_is_saved_and_loaded(proof: zkinfer.Proof, tmp_path: Path) -> None:
    proof.save(tmp_path / "made")
    loaded = zkinfer.Proof.load(tmp_path / "made")
    assert loaded == dataclasses.replace(proof, job="")
    assert zkinfer.verify(loaded, context=CONTEXT).statement == proof.statement
    (tmp_path / "made" / "key.zkvk").write_bytes(b"no key")
    with pytest.raises(zkinfer.VerifyError, match="KEY_ENCODING"):
        zkinfer.Proof.load(tmp_path / "made")


def test_a_float_network_is_quantized_by_the_service(client: zkinfer.Client, float_model: zkinfer.Model, samples: np.ndarray) -> None:
    proof = client.prove(float_model, samples[:1].astype(np.float64))
    expected = np.load(CANCER / "outputs.npy")[0]
    assert proof.output.argmax() == expected.argmax()
    assert b"saturat" in float_model.quantization_report()
