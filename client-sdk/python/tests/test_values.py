"""What needs no service: arrays, documents, errors, waits."""

from __future__ import annotations

import io

import grpc
import numpy as np
import pytest

import zkinfer
from zkinfer import _verify
from zkinfer.batches import _Ends
from zkinfer.errors import CallDetails
from zkinfer.retry import Repetition
from zkinfer.tensors import encode, npy
from zkinfer.v1 import proof_pb2

TENSOR = zkinfer.Tensor("x", (1, 3), 0.5, 100)


def test_floats_travel_as_npy() -> None:
    for dtype, stored in (("float32", "<f4"), (">f4", "<f4"), ("float16", "<f4"), ("float64", "<f8")):
        array = np.arange(6, dtype=dtype).reshape(2, 3).T
        data, encoding = encode(array)
        assert encoding == proof_pb2.Input.ENCODING_NPY
        read = np.load(io.BytesIO(data), allow_pickle=False)
        assert read.dtype == np.dtype(stored) and read.flags.c_contiguous
        np.testing.assert_array_equal(read, array)


def test_bytes_travel_as_they_are() -> None:
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert encode(array) == (bytes(range(6)), proof_pb2.Input.ENCODING_UINT8)
    assert encode(array.T)[0] == bytes([0, 3, 1, 4, 2, 5])


def test_other_inputs_are_refused_with_what_would_be_right() -> None:
    for dtype in ("int8", "int64", "bool", "complex64", "U1"):
        with pytest.raises(TypeError, match="float32"):
            encode(np.zeros(3, dtype=dtype))
    with pytest.raises(TypeError, match="numpy array"):
        encode([1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="empty"):
        npy(np.zeros(0, dtype=np.float32))


def test_quantizing_rounds_ties_to_even_shifts_and_clamps() -> None:
    # As the service does it: server/src/prover/input.rs.
    assert TENSOR.quantize(np.array([0.25, -1.0, 1e9], dtype=np.float32)) == bytes([100, 98, 255])
    assert TENSOR.quantize(np.array([0.75, -1e9, np.inf], dtype=np.float64)) == bytes([102, 0, 255])
    assert TENSOR.quantize(np.array([1, 2, 3], dtype=np.uint8)) == bytes([1, 2, 3])
    with pytest.raises(ValueError, match="not a number"):
        TENSOR.quantize(np.array([np.nan], dtype=np.float32))


def test_integers_become_real() -> None:
    np.testing.assert_array_equal(TENSOR.real([100, 102, 99]), [[0.0, 1.0, -0.5]])


def test_checksums_are_the_published_ones() -> None:
    assert _verify.crc32c(b"123456789") == 0xE3069283
    hasher = _verify.Blake3()
    hasher.update(b"a")
    hasher.update(b"bc")
    assert hasher.digest().hex() == "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"


def test_nonces() -> None:
    assert zkinfer.ContextNonce.of(None).value == bytes(32)
    assert zkinfer.ContextNonce.of("order") == zkinfer.ContextNonce.of(b"order") != zkinfer.ContextNonce.of("other")
    fresh = zkinfer.ContextNonce(zkinfer.random_words())
    assert zkinfer.ContextNonce.of(fresh) is fresh
    assert all(fresh.value[i] < 0x80 for i in (7, 15, 23, 31))
    with pytest.raises(ValueError, match="32 bytes"):
        zkinfer.ContextNonce(b"short")
    with pytest.raises(ValueError, match="context_nonce"):
        zkinfer.verify(b"", b"", b"", context=zkinfer.ContextNonce(b"\xff" * 32))


def test_documents_that_cannot_be_read_are_refused_by_name() -> None:
    for call, reason in (
        (lambda: zkinfer.verify(b"", b"", b"no key"), "KEY_ENCODING"),
        (lambda: zkinfer.Key.from_bytes(b""), "KEY_ENCODING"),
        (lambda: zkinfer.Statement.from_bytes(b"ZKST"), "STATEMENT_ENCODING"),
    ):
        with pytest.raises(zkinfer.VerifyError) as caught:
            call()
        assert caught.value.reason == reason
    with pytest.raises(TypeError, match="needs its statement and key"):
        zkinfer.verify(b"proof")


def call_error(code: grpc.StatusCode, retry_after: float | None = None) -> zkinfer.CallError:
    kind = zkinfer.UnavailableError if code is grpc.StatusCode.UNAVAILABLE else zkinfer.ExhaustedError
    return kind(CallDetails(code, "m", "R", retry_after=retry_after))


def test_waits_double_up_to_the_longest_and_are_spread() -> None:
    policy = zkinfer.RetryPolicy(attempts=9)
    error = call_error(grpc.StatusCode.UNAVAILABLE)
    assert [policy.wait_after(n, error, share=1.0) for n in range(1, 9)] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert [policy.wait_after(n, error, share=0.0) for n in (1, 2)] == [0.1, 0.2]
    assert policy.wait_after(9, error) is None
    drawn = {policy.wait_after(1, error) for _ in range(20)}
    assert len(drawn) > 1 and all(wait is not None and 0.1 <= wait <= 0.2 for wait in drawn)


def test_a_wait_that_the_service_asks_for_is_kept_unless_it_does_not_fit_the_budget() -> None:
    policy = zkinfer.RetryPolicy()
    exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
    assert policy.wait_after(1, call_error(exhausted, 2.0), share=0.0) == 2.0
    assert policy.wait_after(1, call_error(exhausted, 2.0), share=1.0) == 2.5
    # More than the longest wait of its own.
    assert policy.wait_after(1, call_error(exhausted, 30.0), share=1.0) == 37.5
    assert policy.wait_after(2, call_error(exhausted, 30.0), waited=30.0, share=1.0) == 30.0
    assert policy.wait_after(2, call_error(exhausted, 30.0), waited=30.5) is None
    assert policy.wait_after(1, call_error(exhausted, 60.1)) is None
    assert policy.wait_after(6, call_error(exhausted, 0.1)) is None
    assert policy.wait_after(1, call_error(grpc.StatusCode.UNAVAILABLE), waited=59.95, share=0.0) is None
    assert policy.wait_after(1, call_error(exhausted)) is None


def test_waits_in_a_row_use_up_one_budget() -> None:
    repetition = Repetition(zkinfer.RetryPolicy(attempts=9, budget=10.0))
    asked = call_error(grpc.StatusCode.UNAVAILABLE, 4.0)
    assert all(4.0 <= repetition.wait_after(asked) <= 5.0 for _ in range(2))
    with pytest.raises(zkinfer.UnavailableError, match="try again in 4 s"):
        repetition.wait_after(asked)
    repetition.reset()
    assert repetition.wait_after(asked) >= 4.0


def test_errors_say_who_and_why() -> None:
    details = CallDetails(grpc.StatusCode.NOT_FOUND, "model x does not exist", "NOT_FOUND", request_id="r-1")
    assert str(zkinfer.NotFoundError(details)) == "model x does not exist [NOT_FOUND] (request r-1)"
    asked = CallDetails(grpc.StatusCode.UNAVAILABLE, "draining", "DRAINING", request_id="r-1", retry_after=1.2)
    assert str(zkinfer.UnavailableError(asked)) == "draining [DRAINING] (request r-1); try again in 2 s"
    failure = zkinfer.Failure("SHAPE_MISMATCH", "input has 3 elements", False, 1, "witness")
    assert str(zkinfer.EndedError("j", "FAILED", failure)) == "j ended FAILED: SHAPE_MISMATCH in stage witness, input has 3 elements"
    assert zkinfer.EndedError("j", "FAILED", None).reason == ""
    assert zkinfer.JobState(99) is zkinfer.JobState.UNKNOWN and not zkinfer.JobState(99).is_final


def test_a_batch_is_over_when_all_jobs_that_are_there_have_ended() -> None:
    ends = _Ends("tenants/a/batches/1", lambda *_: None)

    def is_over(ended: str, batch: proof_pb2.Batch) -> bool:
        event = proof_pb2.BatchEvent(batch=batch, ended=[ended])
        ends.take(event)
        return ends.is_over(event)

    assert not is_over("1", proof_pb2.Batch(total=3, succeeded=1, queued=2))
    # The first was deleted.
    assert not is_over("2", proof_pb2.Batch(total=2, failed=1, queued=1))
    assert is_over("3", proof_pb2.Batch(total=2, failed=1, succeeded=1))
