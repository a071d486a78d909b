"""Calls of the reference model: golden inputs as requests, answers as numbers."""

import functools
import struct

import msgspec

from edge_agent.inference.tensors import Tensor
from fleet_protocol.manifest import GoldenVector
from tests.integration.runtime.raw_client import RawClient, RawResponse
from tests.unit.edge_agent.inference import v2_request
from tests.unit.edge_agent.inference.reference_release import FAMILY, MODELS

INFER = f"/v2/models/{FAMILY}/infer"
BINARY_OUTPUT = {"parameters": {"binary_data_output": True}}


@functools.cache
def golden(precision: str) -> list[tuple[Tensor, tuple[float, ...]]]:
    """Return the golden images of a reference model, each with its logits."""
    content = msgspec.json.decode((MODELS / "golden.json").read_bytes())
    vectors = msgspec.convert(content[precision]["vectors"], list[GoldenVector])
    return [
        (
            Tensor(
                name="image",
                datatype=vector.inputs[0].datatype,
                shape=vector.inputs[0].shape,
                data=vector.inputs[0].data(),
            ),
            struct.unpack("<10f", vector.outputs[0].data()),
        )
        for vector in vectors
    ]


def batch(images: int) -> Tensor:
    """Return so many golden images as one batch."""
    data = b"".join(bytes(image.data) for image, _ in golden("fp32"))
    one = len(data) // len(golden("fp32"))
    repeated = data * (images // len(golden("fp32")) + 1)
    first = golden("fp32")[0][0]
    return Tensor(
        name=first.name,
        datatype=first.datatype,
        shape=[images, 1, 28, 28],
        data=repeated[: images * one],
    )


def infer(client: RawClient, image: Tensor, path: str = INFER) -> tuple[RawResponse, list[float]]:
    """Call with binary data both ways and return answer and logits."""
    body, length = v2_request.encode([image], binary=[True], fields=BINARY_OUTPUT)
    response = client.call("POST", path, body, header_length=length)
    assert response.status == 200, response.body
    return response, logits(response)


def logits(response: RawResponse) -> list[float]:
    """Return the logits of an answer."""
    header = response.headers.get("inference-header-content-length")
    _, outputs = v2_request.decode(response.body, None if header is None else int(header))
    data = outputs["logits"]
    return list(struct.unpack(f"<{len(data) // 4}f", data))
