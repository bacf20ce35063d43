"""Arrays: what the network's integers mean, and how arrays travel."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .v1 import proof_pb2

Array = npt.NDArray[Any]
Real = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tensor:
    """An input or an output of a network: real = scale * (integer - zero_point)."""

    name: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int

    def quantize(self, array: Array) -> bytes:
        """The bytes that the network reads: uint8 as it is, floats as clamp(round(x / scale) + zero_point, 0, 255), ties to even."""
        check_array(array)
        if array.dtype == np.uint8:
            return bytes(array.tobytes())
        steps = np.rint(array.astype(np.float64) / self.scale) + self.zero_point
        if np.isnan(steps).any():
            raise ValueError("the array holds an element that is not a number")
        return bytes(np.clip(steps, 0, 255).astype(np.uint8).tobytes())

    def integers(self, values: Sequence[int]) -> Integers:
        """Integers of the network, in the tensor's shape."""
        return np.array(values, dtype=np.int64).reshape(self.shape)

    def real(self, values: Sequence[int]) -> Real:
        """The same in real units."""
        real: Real = (self.integers(values) - self.zero_point) * np.float64(self.scale)
        return real


def check_array(array: object) -> None:
    """Raises TypeError for what is not an array of floats or of uint8, ValueError for an empty one."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"the input is a {type(array).__name__}; pass a numpy array")
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise TypeError(f"the array has dtype {array.dtype}; pass float32 in the network's real units, or uint8 as the network's bytes")
    if array.size == 0:
        raise ValueError("the array is empty")


def npy(array: Array) -> bytes:
    """A .npy file of an array of floats or uint8: row-major, little-endian, float32 unless it is float64."""
    check_array(array)
    if array.dtype.kind == "f":
        array = array.astype("<f8" if array.dtype.itemsize >= 8 else "<f4")
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def encode(array: Array) -> tuple[bytes, proof_pb2.Input.Encoding]:
    """An input as it travels: bytes as they are, floats as a .npy file, which the service quantizes."""
    check_array(array)
    if array.dtype == np.uint8:
        return array.tobytes(), proof_pb2.Input.ENCODING_UINT8
    return npy(array), proof_pb2.Input.ENCODING_NPY
