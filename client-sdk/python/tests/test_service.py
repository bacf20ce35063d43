"""Models and jobs of the real service."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

import zkinfer
from conftest import CANCER
from daemon import Daemon, Proxy
from zkinfer import JobRequest, JobState


def test_a_registered_model_tells_its_facts(client: zkinfer.Client, model: zkinfer.Model) -> None:
    assert model.name == "tenants/default/models/cancer" and model.model_id == "cancer"
    assert model.state is zkinfer.ModelState.READY and model.labels == {"kind": "tabular"}
    assert model.registered is not None
    assert model.registered.layer_count == 3
    assert [spec.shape for spec in model.registered.inputs] == [(30,)]
    assert model.key().model_commitment == model.registered.model_commitment
    assert client.model("cancer") == client.model(model.name) == model.refresh()
    assert client.estimate(model).layer_count == 3
    assert client.server_info().tenant == "tenants/default"


def test_models_are_listed_over_pages(client: zkinfer.Client, model: zkinfer.Model, float_model: zkinfer.Model) -> None:
    names = [each.name for each in client.list_models(page_size=1)]
    assert set(names) >= {model.name, float_model.name}
    assert len(names) == len(set(names))


def test_a_registration_is_watched(client: zkinfer.Client) -> None:
    seen: list[zkinfer.Progress] = []
    source = CANCER / "model_uint8_per_channel_qdq.onnx"
    admitted = client.register_model(source, model_id="watched", wait=False)
    ready = admitted.wait(progress=seen.append)
    assert ready.state is zkinfer.ModelState.READY
    assert seen[-1].fraction == 1.0
    assert {"leaf", "outer"} <= {stage.name for stage in seen[-1].stages}


def test_a_network_that_is_none_fails_with_the_reason(client: zkinfer.Client) -> None:
    with pytest.raises(zkinfer.EndedError) as caught:
        client.register_model(b"no network", model_id="broken")
    assert caught.value.reason == "MODEL_INVALID"


def test_a_job_is_watched_without_gaps(client: zkinfer.Client, model: zkinfer.Model, samples: np.ndarray) -> None:
    job = client.submit(model, samples[4:5], labels={"test": "watch"})
    events = list(job.watch())
    sequences = [event.sequence for event in events]
    assert sequences == list(range(sequences[0], sequences[0] + len(events)))
    assert events[-1].state is JobState.SUCCEEDED
    fractions = [event.progress.fraction for event in events if event.progress is not None]
    assert fractions == sorted(fractions)
    # A job that is final tells so in its first event.
    assert [event.state for event in job.watch()] == [JobState.SUCCEEDED]


def test_a_watch_goes_on_after_the_connection_was_cut(daemon: Daemon, model: zkinfer.Model, samples: np.ndarray) -> None:
    proxy = Proxy(daemon.port)
    try:
        with zkinfer.Client(proxy.address) as client:
            job = client.submit("cancer", samples[5:6])
            events = []
            for event in job.watch(timeout=120):
                events.append(event)
                if len(events) in (1, 3):
                    proxy.cut()
            assert job.wait().statement.outputs
            assert proxy.n_accepted >= 2
    finally:
        proxy.close()
    sequences = [event.sequence for event in events]
    assert sequences == list(range(sequences[0], sequences[0] + len(events)))
    assert events[-1].state is JobState.SUCCEEDED


def test_a_batch_is_proved(client: zkinfer.Client, model: zkinfer.Model, samples: np.ndarray) -> None:
    requests = [JobRequest(model, samples[i : i + 1], labels={"test": "batch", "sample": str(i)}) for i in range(3)]
    jobs = client.submit_batch(requests)
    assert [job.labels["sample"] for job in jobs] == ["0", "1", "2"]
    proofs = [job.wait() for job in jobs]
    for i, proof in enumerate(proofs):
        zkinfer.verify(proof, expected_input=samples[i : i + 1])
    listed = client.jobs(labels={"test": "batch"}, states=[JobState.SUCCEEDED], page_size=2)
    assert {job.name for job in listed} == {job.name for job in jobs}


def test_a_wrong_request_refuses_its_batch_by_its_place(client: zkinfer.Client, model: zkinfer.Model, samples: np.ndarray) -> None:
    requests = [JobRequest(model, samples[:1], labels={"test": "refused"}), JobRequest(model, samples[:1], priority=1000)]
    with pytest.raises(zkinfer.InvalidRequestError) as caught:
        client.submit_batch(requests)
    assert [violation.field for violation in caught.value.field_violations] == ["requests[1].job.priority"]
    assert list(client.jobs(labels={"test": "refused"})) == []
    with pytest.raises(zkinfer.InvalidRequestError):
        client.submit_batch([])


def test_a_queued_job_is_cancelled_and_the_one_before_goes_on(client: zkinfer.Client, model: zkinfer.Model, samples: np.ndarray) -> None:
    first, second = client.submit_batch([JobRequest(model, samples[:1]), JobRequest(model, samples[1:2])])
    assert second.cancel("changed my mind").state in (JobState.CANCELLED, JobState.CANCELLING)
    with pytest.raises(zkinfer.EndedError) as caught:
        second.wait()
    assert (caught.value.state, caught.value.reason) == ("CANCELLED", "CANCELLED")
    assert "changed my mind" in str(caught.value)
    assert first.wait().statement.outputs
    # What is final stays so.
    assert first.cancel().state is JobState.SUCCEEDED


def test_a_job_that_has_ended_is_deleted(client: zkinfer.Client, model: zkinfer.Model, samples: np.ndarray) -> None:
    first, second = client.submit_batch([JobRequest(model, samples[:1]), JobRequest(model, samples[1:2])])
    with pytest.raises(zkinfer.PreconditionError, match="cancel it"):
        second.delete()
    second.cancel()
    with pytest.raises(zkinfer.EndedError):
        second.wait()
    for _ in range(2):
        second.delete()
    with pytest.raises(zkinfer.NotFoundError, match="deleted"):
        second.refresh()
    assert client.batch(first.batch).total == 1
    assert first.wait().statement.outputs


def test_a_model_is_deleted_and_its_proofs_stay(client: zkinfer.Client, samples: np.ndarray) -> None:
    source = CANCER / "model_uint8_per_channel_qdq.onnx"
    model = client.register_model(source, model_id="gone")
    job = client.submit(model, samples[:1])
    with pytest.raises(zkinfer.PreconditionError, match="1 job of the model is not over"):
        model.delete()
    job.wait()
    for _ in range(2):
        model.delete()
    with pytest.raises(zkinfer.NotFoundError, match="does not exist"):
        model.refresh()
    with pytest.raises(zkinfer.NotFoundError):
        client.submit(model, samples[:1])
    zkinfer.verify(job.refresh().proof())
    assert client.register_model(source, model_id="gone").state is zkinfer.ModelState.READY


def test_a_deadline_expires(client: zkinfer.Client, model: zkinfer.Model, samples: np.ndarray) -> None:
    job = client.submit(model, samples[:1], deadline=datetime.now(timezone.utc) - timedelta(seconds=1))
    with pytest.raises(zkinfer.EndedError) as caught:
        job.wait()
    assert (caught.value.state, caught.value.reason) == ("EXPIRED", "DEADLINE")
    with pytest.raises(ValueError, match="time zone"):
        client.submit(model, samples[:1], deadline=datetime.now())


def test_waiting_ends_with_its_timeout_and_the_job_goes_on(client: zkinfer.Client, model: zkinfer.Model, samples: np.ndarray) -> None:
    jobs = client.submit_batch([JobRequest(model, samples[i : i + 1]) for i in range(2)])
    with pytest.raises(TimeoutError, match=jobs[1].name):
        jobs[1].wait(timeout=0.05)
    assert jobs[1].wait().job == jobs[1].name


def test_an_input_of_the_wrong_size_fails_with_the_reason(client: zkinfer.Client, model: zkinfer.Model) -> None:
    with pytest.raises(zkinfer.EndedError) as caught:
        client.prove(model, np.zeros((1, 29), dtype=np.float32))
    assert caught.value.reason == "SHAPE_MISMATCH"
    assert caught.value.failure is not None and not caught.value.failure.is_retryable


def test_an_input_that_is_no_number_fails_with_the_reason(client: zkinfer.Client, model: zkinfer.Model) -> None:
    with pytest.raises(zkinfer.EndedError) as caught:
        client.prove(model, np.full((1, 30), np.nan, dtype=np.float32))
    assert caught.value.reason == "INPUT_CORRUPT"


def test_what_does_not_exist_is_not_found(client: zkinfer.Client, samples: np.ndarray) -> None:
    for call in (
        lambda: client.model("nothing"),
        lambda: client.prove("nothing", samples[:1]),
        lambda: client.job("tenants/default/jobs/00000000-0000-7000-8000-000000000000"),
    ):
        with pytest.raises(zkinfer.NotFoundError) as caught:
            call()
        assert caught.value.reason == "NOT_FOUND" and caught.value.details.request_id


def test_an_existing_model_is_not_made_again(client: zkinfer.Client, model: zkinfer.Model) -> None:
    with pytest.raises(zkinfer.AlreadyExistsError):
        client.register_model(CANCER / "model.onnx", model_id="cancer")


def test_wrong_fields_are_named_all_at_once(client: zkinfer.Client, model: zkinfer.Model, samples: np.ndarray) -> None:
    with pytest.raises(zkinfer.InvalidRequestError) as caught:
        client.submit("tenants/default/models/UPPER", samples[:1], priority=101, labels={"Not a label": "x"})
    fields = {violation.field for violation in caught.value.field_violations}
    assert {"job.model", "job.priority"} <= fields and len(fields) >= 3


def test_a_large_input_is_uploaded(client: zkinfer.Client, model: zkinfer.Model) -> None:
    with pytest.raises(zkinfer.EndedError) as caught:
        client.prove(model, np.zeros(300_000, dtype=np.uint8))
    assert caught.value.reason == "SHAPE_MISMATCH"
