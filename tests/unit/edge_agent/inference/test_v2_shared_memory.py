"""Requests that name shared memory instead of bringing data."""

import json

import pytest

from edge_agent.inference import v2_codec
from edge_agent.inference.errors import RequestError
from edge_agent.inference.inference_request import Slice
from edge_agent.inference.tensors import Tensor
from fleet_protocol.manifest import Datatype
from tests.unit.edge_agent.inference.v2_request import binary_entry, entry


def shared(**parameters: object) -> dict[str, object]:
    return {"shared_memory_region": "r", **parameters}


def test_shared_memory_is_named_not_fetched() -> None:
    body = json.dumps(
        {
            "inputs": [
                entry(data=None, parameters=shared(shared_memory_byte_size=8)),
                binary_entry(8, name="z"),
            ],
            "outputs": [
                {
                    "name": "y",
                    "parameters": shared(shared_memory_byte_size=9, shared_memory_offset=7),
                }
            ],
        }
    ).encode()
    request = v2_codec.decode_request(body + bytes(8), len(body), shared_memory=True)
    assert request.shared_inputs == {"x": Slice(region="r", offset=0, byte_size=8)}
    assert request.shared_outputs == {"y": Slice(region="r", offset=7, byte_size=9)}
    output = Tensor(name="y", datatype=Datatype.INT8, shape=[2], data=b"\1\2")
    encoded = v2_codec.encode_answer(request, [output], model_name="m", model_version="1.0.0")
    assert encoded.header_length is None
    (described_output,) = json.loads(b"".join(encoded.parts))["outputs"]
    assert described_output == {"name": "y", "datatype": "INT8", "shape": [2]}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"inputs": [entry(data=None, parameters=shared())]}, "'x' needs shared_memory_byte_size"),
        (
            {"inputs": [entry(data=None, parameters=shared(shared_memory_byte_size=4))]},
            r"declares 4 bytes.*FP32\[2\] takes 8",
        ),
        (
            {"inputs": [entry(parameters=shared(shared_memory_byte_size=8))]},
            "either data or binary_data_size or shared_memory_region",
        ),
        (
            {"inputs": [entry(data=None, parameters=shared(shared_memory_offset=-1))]},
            ">= 0",
        ),
        (
            {
                "inputs": [entry()],
                "outputs": [
                    {
                        "name": "y",
                        "parameters": shared(classification=2, shared_memory_byte_size=8),
                    }
                ],
            },
            "classes cannot be put into shared memory",
        ),
    ],
)
def test_malformed_references_to_shared_memory_are_refused(
    fields: dict[str, object], complaint: str
) -> None:
    with pytest.raises(RequestError, match=complaint):
        v2_codec.decode_request(json.dumps(fields).encode(), None, shared_memory=True)
