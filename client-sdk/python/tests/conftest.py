"""The real service, once for all tests, and one proof of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import zkinfer
from daemon import Daemon

ROOT = Path(__file__).resolve().parents[3]
MODELS = ROOT / "models"
CANCER = MODELS / "mlp-breast-cancer"
CONTEXT = "a test"


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A running `zkinferd`, whose webhooks may reach this machine."""
    with Daemon(tmp_path_factory.mktemp("service"), "--webhooks-anywhere") as running:
        yield running


@pytest.fixture(scope="session")
def client(daemon: Daemon) -> Iterator[zkinfer.Client]:
    """A client of it."""
    with zkinfer.Client(daemon.address) as client:
        yield client


@pytest.fixture(scope="session")
def model(client: zkinfer.Client) -> zkinfer.Model:
    """The diagnosis, as onnxruntime quantized it."""
    return client.register_model(CANCER / "model_uint8_per_channel_qdq.onnx", model_id="cancer", labels={"kind": "tabular"})


@pytest.fixture(scope="session")
def float_model(client: zkinfer.Client, samples: np.ndarray) -> zkinfer.Model:
    """The diagnosis in floats, quantized by the service."""
    source = (CANCER / "model.onnx").read_bytes()
    return client.register_model(source, model_id="cancer-float", calibration=samples, granularity="per_tensor", weights="public")


@pytest.fixture(scope="session")
def samples() -> np.ndarray:
    """20 samples of 30 features, float32."""
    array: np.ndarray = np.load(CANCER / "inputs.npy")
    return array


@pytest.fixture(scope="session")
def proof(client: zkinfer.Client, model: zkinfer.Model, samples: np.ndarray) -> zkinfer.Proof:
    """A proof about the first sample."""
    return client.prove(model, samples[:1], context=CONTEXT, labels={"made": "first"})


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing leaves this machine."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert "ZKINFERD" in os.environ, "run client-sdk/python/test.sh: it builds the service and says where it is"
