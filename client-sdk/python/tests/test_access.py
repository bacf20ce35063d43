"""TLS, API keys and client certificates, with the daemon's own commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

import zkinfer
from daemon import Daemon, zkinferd

FAST = zkinfer.RetryPolicy(attempts=1)


@dataclass(frozen=True)
class Guarded:
    """A service with TLS and API keys."""

    address: str
    ca: Path
    api_key: str
    verify_key: str


def make_key(file: Path, name: str, *options: str) -> str:
    """A new key of the default tenant."""
    made = json.loads(zkinferd("keys", "create", "--keys", str(file), "--name", name, "--json", *options))
    return str(made["key"])


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """The service, running."""
    folder = tmp_path_factory.mktemp("guarded")
    certs, keys = folder / "certs", folder / "keys"
    zkinferd("certs", "--out", str(certs), "--name", "127.0.0.1", "localhost")
    full, verify = make_key(keys, "full"), make_key(keys, "verifier", "--scopes", "verify")
    tls = ["--tls-cert", str(certs / "server.pem"), "--tls-key", str(certs / "server-key.pem")]
    with Daemon(folder, *tls, "--keys", str(keys)) as daemon:
        yield Guarded(daemon.address, certs / "ca.pem", full, verify)


def test_a_key_over_tls_is_let_in(guarded: Guarded) -> None:
    with zkinfer.Client(guarded.address, ca=guarded.ca, api_key=guarded.api_key) as client:
        assert list(client.list_models()) == []
        assert client.server_info().tenant == "tenants/default"
    # As bytes, and under the other name of a bearer's credential.
    with zkinfer.Client(guarded.address, ca=guarded.ca.read_bytes(), token=guarded.api_key) as client:
        assert list(client.jobs()) == []


def test_a_client_without_or_with_a_wrong_key_is_refused(guarded: Guarded) -> None:
    for api_key in (None, "zk_wrong"):
        with zkinfer.Client(guarded.address, ca=guarded.ca, api_key=api_key) as client:
            with pytest.raises(zkinfer.UnauthenticatedError) as caught:
                list(client.list_models())
        assert caught.value.reason == "UNAUTHENTICATED"
        assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED


def test_a_key_may_do_what_its_scopes_say(guarded: Guarded) -> None:
    with zkinfer.Client(guarded.address, ca=guarded.ca, api_key=guarded.verify_key) as client:
        with pytest.raises(zkinfer.PermissionDeniedError) as caught:
            list(client.list_models())
    assert caught.value.reason == "SCOPE_MISSING"
    assert caught.value.details.metadata == {"scope": "models.read"}


def test_a_service_of_another_authority_is_not_believed(guarded: Guarded, tmp_path: Path) -> None:
    zkinferd("certs", "--out", str(tmp_path / "other"), "--name", "127.0.0.1")
    with zkinfer.Client(guarded.address, ca=tmp_path / "other" / "ca.pem", api_key=guarded.api_key, retry=FAST) as client:
        with pytest.raises(zkinfer.UnavailableError):
            client.server_info()


def test_a_client_certificate_is_a_credential(tmp_path: Path) -> None:
    certs, principals = tmp_path / "certs", tmp_path / "principals"
    zkinferd("certs", "--out", str(certs), "--name", "127.0.0.1", "--client", "notebook")
    principals.write_text("notebook default\n")
    tls = ["--tls-cert", str(certs / "server.pem"), "--tls-key", str(certs / "server-key.pem")]
    clients = ["--tls-client-ca", str(certs / "ca.pem"), "--tls-client-map", str(principals)]
    with Daemon(tmp_path, *tls, *clients) as daemon:
        cert, key = certs / "client.pem", certs / "client-key.pem"
        with zkinfer.Client(daemon.address, ca=certs / "ca.pem", cert=cert, key=key) as client:
            assert client.server_info().tenant == "tenants/default"
        with zkinfer.Client(daemon.address, ca=certs / "ca.pem", retry=FAST) as client, pytest.raises(zkinfer.UnavailableError):
            client.server_info()
