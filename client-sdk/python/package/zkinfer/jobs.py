"""Jobs of the service, and the proofs that they end in."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from google.protobuf import timestamp_pb2

from . import _transfer, _watch
from ._blocking import Connection
from ._connection import Services
from ._steps import Steps
from .documents import Context, ContextNonce, Key, Statement
from .errors import EndedError
from .models import ModelFacts
from .progress import Failure, JobState, Progress, moment
from .tensors import Array, Integers, Real, encode
from .v1 import proof_pb2

InputPrivacy = Literal["public", "private"]

_PRIVACY = {"public": proof_pb2.PRIVACY_INPUT_PUBLIC, "private": proof_pb2.PRIVACY_INPUT_COMMITTED}
# Inputs up to this size travel inside the request; those of a batch share a message.
INLINE_BYTES = 256 << 10
BATCH_INLINE_BYTES = 8 << 10


@dataclass(frozen=True)
class Upload:
    """An input too large for its request."""

    data: bytes
    media_type: str


@dataclass(frozen=True)
class JobRequest:
    """A proof to be made."""

    # A model, its id, or its full name.
    model: ModelFacts | str
    # Floats in the network's real units, which the service quantizes, or uint8 as the network's bytes.
    input: Array
    # "public": the statement shows the input. "private": it holds a salted commitment.
    input_privacy: InputPrivacy = "public"
    # Binds the proof to one use; without, whoever has the proof can show it again.
    context: Context = None
    # Salt of the commitment to a private input, for who wants to open it later (`random_words`); None: the service draws one.
    input_salt: bytes | None = None
    # For the caller's own use.
    labels: Mapping[str, str] = field(default_factory=dict)
    # -100 to 100; higher goes first. A step is worth 20 seconds of waiting; above 9 counts as 9, below -9 as -9.
    priority: int = 0
    # The job expires if it has not succeeded by then.
    deadline: datetime | None = None

    def _message(self, inline_bytes: int) -> tuple[proof_pb2.CreateJobRequest, Upload | None]:
        """The request on the wire, without the model's name and request id; an input of more than `inline_bytes` is to be uploaded."""
        if self.input_privacy not in _PRIVACY:
            raise ValueError(f'input_privacy is {self.input_privacy!r}; say "public" or "private"')
        data, encoding = encode(self.input)
        is_inline = len(data) <= inline_bytes
        media_type = _transfer.NPY if encoding == proof_pb2.Input.ENCODING_NPY else _transfer.OCTET_STREAM
        job = proof_pb2.Job(
            input=proof_pb2.Input(encoding=encoding, inline=data if is_inline else None),
            privacy=_PRIVACY[self.input_privacy],
            context_nonce=ContextNonce.of(self.context).value,
            labels=self.labels,
            priority=self.priority,
            deadline=None if self.deadline is None else _timestamp(self.deadline),
        )
        request = proof_pb2.CreateJobRequest(job=job, input_salt=self.input_salt or b"")
        return request, None if is_inline else Upload(data, media_type)


def _timestamp(time_: datetime) -> timestamp_pb2.Timestamp:
    if time_.tzinfo is None:
        raise ValueError("deadline has no time zone; write datetime.now(timezone.utc) + ..., for example")
    timestamp = timestamp_pb2.Timestamp()
    timestamp.FromDatetime(time_)
    return timestamp


@dataclass(frozen=True)
class Proof:
    """A proof with its statement and the model's verifier key: all that anybody needs to verify it."""

    # The proof itself.
    bytes: builtins.bytes = field(repr=False)
    statement: Statement
    key: Key
    # Name of the job that made it.
    job: str = ""

    @property
    def output(self) -> Real:
        """The output in the network's real units."""
        return self.key.output_real(self.statement)

    @property
    def output_integers(self) -> Integers:
        """The output as the program computed it: this is what is proved."""
        return self.key.output_integers(self.statement)

    def save(self, directory: Path | str) -> None:
        """Writes proof.zkp, statement.zks and key.zkvk, as the command `zkinfer verify` takes them. Makes the directory."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "proof.zkp").write_bytes(self.bytes)
        (folder / "statement.zks").write_bytes(self.statement.bytes)
        (folder / "key.zkvk").write_bytes(self.key.bytes)

    @classmethod
    def load(cls, directory: Path | str) -> Proof:
        """Reads what `save` wrote; raises VerifyError for a statement or key that cannot be read. Nothing is verified yet."""
        proof, statement, key = ((Path(directory) / name).read_bytes() for name in ("proof.zkp", "statement.zks", "key.zkvk"))
        return cls(proof, Statement.from_bytes(statement), Key.from_bytes(key))


@dataclass(frozen=True)
class JobEvent:
    """Something that happened to a job. The first of a watch tells how things are; then sequences have no gaps."""

    sequence: int
    time: datetime
    state: JobState
    progress: Progress | None
    # With FAILED, CANCELLED and EXPIRED.
    failure: Failure | None

    @classmethod
    def _of(cls, message: proof_pb2.JobEvent) -> JobEvent:
        return cls(
            sequence=message.sequence,
            time=moment(message.time),
            state=JobState(message.state),
            progress=Progress._of(message.progress) if message.HasField("progress") else None,
            failure=Failure._of(message.failure) if message.HasField("failure") else None,
        )


@dataclass(frozen=True)
class JobFacts:
    """What the service says about a job, as it was when it answered."""

    # `tenants/{tenant}/jobs/{uuid}`.
    name: str
    # Full name of the model.
    model: str
    state: JobState
    labels: Mapping[str, str]
    priority: int
    # Full name of the batch that it came with; empty if it came alone.
    batch: str
    progress: Progress | None
    # Set when it ended without success.
    failure: Failure | None
    create_time: datetime
    # None: not yet.
    end_time: datetime | None
    _result: proof_pb2.JobResult | None = field(repr=False)

    @staticmethod
    def _fields(message: proof_pb2.Job) -> dict[str, Any]:
        return {
            "name": message.name,
            "model": message.model,
            "state": JobState(message.state),
            "labels": dict(message.labels),
            "priority": message.priority,
            "batch": message.batch,
            "progress": Progress._of(message.progress) if message.HasField("progress") else None,
            "failure": Failure._of(message.failure) if message.HasField("failure") else None,
            "create_time": moment(message.create_time),
            "end_time": moment(message.end_time) if message.HasField("end_time") else None,
            "_result": message.result if message.HasField("result") else None,
        }

    def _download(self, services: Services) -> Steps[Proof]:
        """Proof, statement and key; raises EndedError for a job that has not SUCCEEDED."""
        result = self._result
        if result is None:
            raise EndedError(self.name, self.state.name, self.failure)
        proof = yield from _transfer.download(services, result.proof_artifact)
        statement = yield from _transfer.download(services, result.statement_artifact)
        key = yield from _transfer.download(services, result.verifier_key_artifact)
        return Proof(proof, Statement.from_bytes(statement), Key.from_bytes(key), self.name)

    def _watched(self, services: Services) -> _watch.Subject:
        return _watch.Sequence(
            name=self.name,
            method=services.proofs.WatchJob,
            request_from=lambda sequence: proof_pb2.WatchJobRequest(name=self.name, from_sequence=sequence),
            is_final=lambda state: JobState(state).is_final,
        )


@dataclass(frozen=True)
class Job(JobFacts):
    """A proof being made, as it was when the service answered. It goes on whatever happens to the client."""

    _connection: Connection = field(repr=False, compare=False)

    @classmethod
    def _of(cls, connection: Connection, message: proof_pb2.Job) -> Job:
        return cls(**cls._fields(message), _connection=connection)

    def refresh(self) -> Job:
        """The job as it is now."""
        return self._call(self._connection.proofs.GetJob, proof_pb2.GetJobRequest(name=self.name))

    def cancel(self, reason: str = "") -> Job:
        """Tells the service that the proof is not wanted any more: CANCELLED, or CANCELLING while its work stops."""
        return self._call(self._connection.proofs.CancelJob, proof_pb2.CancelJobRequest(name=self.name, reason=reason))

    def delete(self) -> None:
        """Deletes the job with its proof; no error if it is gone. PreconditionError before it has ended and webhooks have heard of that."""
        self._connection.call(self._connection.proofs.DeleteJob, proof_pb2.DeleteJobRequest(name=self.name, allow_missing=True))

    def _call(self, method: Callable[..., proof_pb2.Job], request: object) -> Job:
        return Job._of(self._connection, self._connection.call(method, request))

    def watch(self, timeout: float | None = None) -> Iterator[JobEvent]:
        """What happens to the job from now on, until its final state; TimeoutError after so many seconds."""
        watched = self._watched(self._connection)
        return map(JobEvent._of, self._connection.items(_watch.watch, watched, _watch.monotonic_deadline(timeout)))

    def wait(self, timeout: float | None = None, progress: Callable[[Progress], None] | None = None) -> Proof:
        """Waits for the proof and downloads it; raises EndedError if there is none, TimeoutError after so many seconds.

        After TimeoutError the job goes on: wait again, or `cancel` it. The proof is not verified.
        """
        for event in self.watch(timeout):
            if progress is not None and event.progress is not None:
                progress(event.progress)
        return self.refresh().proof()

    def proof(self) -> Proof:
        """Downloads the proof of a job that has SUCCEEDED; raises EndedError for another."""
        return self._connection.run(self._download)
