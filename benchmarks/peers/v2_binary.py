"""Calls by Open Inference Protocol V2 over HTTP with the binary tensor extension."""

from pathlib import Path

import msgspec
import numpy as np

from benchmarks.measuring.http_client import HttpClient, header
from benchmarks.models.bench_models import Array, BenchModel

_JSON_LENGTH = "Inference-Header-Content-Length"


class V2Binary:
    """A connection for one model; head and JSON are the same for every call and made once."""

    def __init__(self, address: Path | int, model: BenchModel) -> None:
        """Connect.

        Raises:
            OSError: nobody listens there.
        """
        size = model.sample.nbytes
        described = {
            "name": model.input.name,
            "datatype": model.input.datatype,
            "shape": model.input.shape,
            "parameters": {"binary_data_size": size},
        }
        asked = {"inputs": [described], "parameters": {"binary_data_output": True}}
        self._json = msgspec.json.encode(asked)
        self._head = (
            f"POST /v2/models/{model.name}/infer HTTP/1.1\r\n"
            "Host: localhost\r\n"
            "Content-Type: application/octet-stream\r\n"
            f"{_JSON_LENGTH}: {len(self._json)}\r\n"
            f"Content-Length: {len(self._json) + size}\r\n"
            "\r\n"
        ).encode()
        self._shape = model.output.shape
        self._client = HttpClient(address)

    def call(self, tensor: Array) -> Array:
        """Return the model's output.

        Raises:
            HttpClientError: the server refused.
        """
        headers, body = self._client.request(self._head, self._json, tensor.data.cast("B"))
        json_length = int(header(headers, _JSON_LENGTH.lower().encode()))
        return np.frombuffer(body[json_length:], np.float32).reshape(self._shape)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
