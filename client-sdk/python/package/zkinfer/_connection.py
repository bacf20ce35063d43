"""What both kinds of connection have: address, credentials, services."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc

from ._trace import trace_metadata
from .errors import CallDetails, UnavailableError
from .retry import RetryPolicy
from .v1 import artifact_pb2_grpc, model_pb2_grpc, proof_pb2_grpc, system_pb2_grpc, webhook_pb2_grpc

Pem = bytes | str | os.PathLike[str]

# Reason of an error of this side: a stream fell silent.
SILENT = "SILENT"
# Largest message accepted from the service.
_MAX_MESSAGE_BYTES = 16 << 20
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Options:
    """How to connect."""

    # PEM of the authorities, one of which must have signed the service's certificate: bytes or a file; None: those that gRPC brings along.
    ca: Pem | None = None
    # PEM of the client's certificate and of its private key: bytes or a file.
    cert: Pem | None = None
    key: Pem | None = field(default=None, repr=False)
    # An API key or a signed token, sent with each call.
    credential: str | None = field(default=None, repr=False)
    # Seconds that an attempt at a call may take.
    timeout: float = 75.0
    # A stream that is silent for so many seconds is opened anew. The service sends a sign of life every 15 seconds.
    silence: float = 45.0
    retry: RetryPolicy = RetryPolicy()


@dataclass(frozen=True)
class Address:
    """Where the service is."""

    target: str
    is_encrypted: bool
    is_loopback: bool


def parse_address(text: str) -> Address:
    """Reads `http://HOST:PORT` or `https://HOST:PORT`; raises ValueError for anything else."""
    wrong = ValueError(f"{text!r} is not an address of the form http://HOST:PORT or https://HOST:PORT")
    try:
        parts = urlsplit(text)
        default_port = _DEFAULT_PORTS[parts.scheme]
        port = default_port if parts.port is None else parts.port
    except (ValueError, KeyError):
        raise wrong from None
    host = parts.hostname
    if not host or parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise wrong
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Address(target, parts.scheme == "https", _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _pem(value: Pem | None) -> bytes | None:
    return value if value is None or isinstance(value, bytes) else Path(value).read_bytes()


@dataclass(frozen=True)
class Route:
    """How a channel is opened: to which target, with which credentials (None: without TLS), with which arguments."""

    target: str
    credentials: grpc.ChannelCredentials | None
    arguments: list[tuple[str, Any]]


def route(text: str, options: Options) -> Route:
    """The way to an address; raises ValueError for certificates that do not fit."""
    address = parse_address(text)
    if (options.cert is None) != (options.key is None):
        raise ValueError("cert and key need each other")
    # Whoever gives certificates expects them to protect something.
    if not address.is_encrypted and (options.ca is not None or options.cert is not None):
        raise ValueError(f"{text} is without TLS, where certificates protect nothing; write https:// or leave them out")
    credentials = None
    if address.is_encrypted:
        credentials = grpc.ssl_channel_credentials(_pem(options.ca), _pem(options.key), _pem(options.cert))
    arguments: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        # Repetitions are decided in one place, the RetryPolicy.
        ("grpc.enable_retries", 0),
        # A proxy named by the environment cannot reach this machine's loopback.
        ("grpc.enable_http_proxy", 0 if address.is_loopback else 1),
    ]
    return Route(address.target, credentials, arguments)


def credential_of(api_key: str | None, token: str | None) -> str | None:
    """The one credential that goes with each call."""
    if api_key is not None and token is not None:
        raise ValueError("give api_key or token, not both")
    return token if api_key is None else api_key


def call_metadata(credential: str | None) -> tuple[tuple[str, str], ...]:
    """What goes with each call."""
    if credential is None:
        return ()
    if not credential or not all("!" <= character <= "~" for character in credential):
        # Without the value: it is a secret.
        raise ValueError("the API key or token is empty or holds characters that cannot be sent")
    return (("authorization", f"Bearer {credential}"),)


class Services:
    """The services behind a channel, as both kinds of connection have them."""

    def __init__(self, channel: Any, options: Options) -> None:
        self.options = options
        self._credential = call_metadata(options.credential)
        self.artifacts: Any = artifact_pb2_grpc.ArtifactServiceStub(channel)
        self.models: Any = model_pb2_grpc.ModelServiceStub(channel)
        self.proofs: Any = proof_pb2_grpc.ProofServiceStub(channel)
        self.system: Any = system_pb2_grpc.SystemServiceStub(channel)
        self.webhooks: Any = webhook_pb2_grpc.WebhookServiceStub(channel)
        # The caller's own, `tenants/{tenant}`, once the service has told it.
        self.tenant: str | None = None

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with the call that is about to be made."""
        return (*self._credential, *trace_metadata())


def silence_error(seconds: float) -> UnavailableError:
    """The error of a stream that fell silent."""
    return UnavailableError(CallDetails(grpc.StatusCode.UNAVAILABLE, f"nothing came for {seconds:.0f} s", SILENT))
