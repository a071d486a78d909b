"""The messages: made from the committed .proto, and those of the protocol."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from tritonclient.grpc import model_config_pb2, service_pb2

from edge_agent.inference.grpc_api.wire import open_inference_pb2 as wire

ROOT = Path(__file__).parents[5]
UNSERVED = {"TraceSetting", "LogSettings"}
OF_MLSERVER = "inference.ModelMetadataResponse.parameters"
"""A field that Triton has not; its clients skip it."""


def test_the_committed_files_are_what_the_generator_makes() -> None:
    run = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "grpc_messages.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, ""), run.stderr


def _nature(field: FieldDescriptor) -> tuple[object, ...]:
    inner = field.message_type or field.enum_type
    oneof = field.containing_oneof
    return (
        field.number,
        field.type,
        field.is_repeated,
        inner.full_name if inner else None,
        oneof.name if oneof else None,
    )


def _all(messages: list[Descriptor]) -> list[Descriptor]:
    return [
        *messages,
        *(
            inner
            for one in messages
            for inner in _all(list(one.nested_types))
            if inner.full_name != f"{OF_MLSERVER.rpartition('.')[0]}.ParametersEntry"
        ),
    ]


MESSAGES = _all(list(wire.DESCRIPTOR.message_types_by_name.values()))


@pytest.mark.parametrize("ours", MESSAGES, ids=lambda message: str(message.full_name))
def test_every_field_is_the_one_that_tritons_client_knows(ours: Descriptor) -> None:
    pool = service_pb2.DESCRIPTOR.pool
    theirs = pool.FindMessageTypeByName(ours.full_name).fields_by_name
    for field in (field for field in ours.fields if field.full_name != OF_MLSERVER):
        assert _nature(field) == _nature(theirs[field.name])


def test_every_method_is_there() -> None:
    ours = wire.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert set(ours) == set(theirs) - UNSERVED
    for name, method in ours.items():
        assert method.input_type.full_name == theirs[name].input_type.full_name
        assert method.output_type.full_name == theirs[name].output_type.full_name
        assert method.client_streaming == theirs[name].client_streaming
        assert method.server_streaming == theirs[name].server_streaming


def test_the_datatypes_are_numbered_alike() -> None:
    assert dict(wire.DataType.items()) == dict(model_config_pb2.DataType.items())
