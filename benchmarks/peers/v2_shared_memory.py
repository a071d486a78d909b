"""Calls by Open Inference Protocol V2 over HTTP with the input in system shared memory."""

import mmap
import os
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.measuring.http_client import HttpClient, header
from benchmarks.models.bench_models import Array, BenchModel

_REGION = "benchmark"
_JSON_LENGTH = "Inference-Header-Content-Length"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (where POSIX shared memory lies on Linux)


class V2SharedMemory:
    """A connection whose input region holds the model's sample.

    The tensor lies in the region before the calls, as with an application that captures its images
    into it; the answer, which is small, travels as binary data.
    """

    def __init__(self, address: Path | int, model: BenchModel) -> None:
        """Make the region, connect, and register it.

        Raises:
            OSError: nobody listens there, or there is no room for the region.
            HttpClientError: the server refused the region.
        """
        size = model.sample.nbytes
        self._file = _SHARED_MEMORY / f"skerry-benchmark-{os.getpid()}-{id(self)}"
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, size)
            self._map = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        self._map[:] = model.sample.tobytes()
        self._sample = model.sample
        self._shape = model.output.shape
        self._client = HttpClient(address)
        self._post(
            f"/v2/systemsharedmemory/region/{_REGION}/register",
            {"key": f"/{self._file.name}", "offset": 0, "byte_size": size},
        )
        described = {
            "name": model.input.name,
            "datatype": model.input.datatype,
            "shape": model.input.shape,
            "parameters": {"shared_memory_region": _REGION, "shared_memory_byte_size": size},
        }
        asked = {"inputs": [described], "parameters": {"binary_data_output": True}}
        self._json = msgspec.json.encode(asked)
        self._head = _head(f"/v2/models/{model.name}/infer", len(self._json))

    def call(self, tensor: Array) -> Array:
        """Return the model's output for the sample.

        Raises:
            ValueError: the tensor is not the one that lies in the region.
            HttpClientError: the server refused.
        """
        if tensor is not self._sample:
            raise ValueError("the region holds the model's sample only")
        headers, body = self._client.request(self._head, self._json)
        json_length = int(header(headers, _JSON_LENGTH.lower().encode()))
        return np.frombuffer(body[json_length:], np.float32).reshape(self._shape)

    def close(self) -> None:
        """Unregister and remove the region, close the connection."""
        self._post(f"/v2/systemsharedmemory/region/{_REGION}/unregister", {})
        self._client.close()
        self._map.close()
        self._file.unlink()

    def _post(self, path: str, body: dict[str, object]) -> None:
        payload = msgspec.json.encode(body)
        self._client.request(_head(path, len(payload)), payload)


def _head(path: str, length: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()
