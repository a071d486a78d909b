"""The JSON of the Open Inference Protocol V2, as structures.

Source: https://github.com/kserve/open-inference-protocol (inference_rest) and Triton's binary
tensor data extension. Fields and parameters that we do not know are ignored, as the protocol asks;
known ones that ask for something we do not do are read, so that they can be refused.
"""

from typing import Annotated

import msgspec

from edge_agent.inference.statistics import ModelStatistics

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Dimension = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Shape = Annotated[list[Dimension], msgspec.Meta(max_length=8)]
Size = Annotated[int, msgspec.Meta(ge=0, le=2**40)]


class InputParameters(msgspec.Struct, frozen=True):
    """Parameters of one input."""

    binary_data_size: Size | None = None
    shared_memory_region: str | None = None
    shared_memory_offset: Size = 0
    shared_memory_byte_size: Size | None = None


class Input(msgspec.Struct, frozen=True):
    """One input; ``data`` is read later, by its datatype."""

    name: Name
    shape: Shape
    datatype: str
    parameters: InputParameters = InputParameters()
    data: msgspec.Raw = msgspec.Raw()


class OutputParameters(msgspec.Struct, frozen=True):
    """Parameters of one requested output."""

    binary_data: bool | None = None
    classification: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 0
    shared_memory_region: str | None = None
    shared_memory_offset: Size = 0
    shared_memory_byte_size: Size | None = None


class RequestedOutput(msgspec.Struct, frozen=True):
    """One output that the caller wants."""

    name: Name
    parameters: OutputParameters = OutputParameters()


class RequestParameters(msgspec.Struct, frozen=True):
    """Parameters of the whole request.

    Attributes:
        timeout: in microseconds.
        priority: 1 is the highest; 0 leaves it to the server.
        sequence_id: of calls that share a state; 0 or empty for none.
        sequence_start: the first of them.
        sequence_end: the last of them.
    """

    binary_data_output: bool = False
    timeout: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    priority: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] = 0
    sequence_id: int | str = 0
    sequence_start: bool = False
    sequence_end: bool = False


class Request(msgspec.Struct, frozen=True):
    """Body, or inference header, of ``POST /v2/models/<model>/infer``."""

    inputs: Annotated[list[Input], msgspec.Meta(min_length=1, max_length=64)]
    id: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    parameters: RequestParameters = RequestParameters()
    outputs: Annotated[list[RequestedOutput], msgspec.Meta(max_length=64)] = []


class BinarySize(msgspec.Struct, frozen=True):
    """Parameters of an output whose data follows the JSON."""

    binary_data_size: int


class Output(msgspec.Struct, frozen=True, omit_defaults=True):
    """One output, with ``data``, with ``parameters`` that announce binary data, or with neither.

    With neither, its data are in shared memory, where the caller wanted them.
    """

    name: str
    datatype: str
    shape: list[int]
    parameters: BinarySize | None = None
    data: tuple[object, ...] | None = None


class Response(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer of ``infer``."""

    model_name: str
    model_version: str
    outputs: list[Output]
    id: str = ""


class TensorMetadata(msgspec.Struct, frozen=True):
    """An input or output in the metadata of a model."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``GET /v2/models/<model>``."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class PlacedModelMetadata(ModelMetadata, frozen=True, kw_only=True):
    """The same with what the protocol has no field for.

    Attributes:
        parameters: ``variant``, ``accelerator``, and ``choice``: why these and no others.
    """

    parameters: dict[str, str]


class ServerMetadata(msgspec.Struct, frozen=True):
    """Answer of ``GET /v2``."""

    name: str
    version: str
    extensions: list[str]


class StatisticsAnswer(msgspec.Struct, frozen=True):
    """Answer of ``GET /v2/models/stats`` and ``/v2/models/<model>/stats``."""

    model_stats: list[ModelStatistics]


class Failure(msgspec.Struct, frozen=True):
    """Body of every answer that is not a success."""

    error: str
