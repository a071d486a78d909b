"""What the message of an inference request asks for: all that can be said without its tensors.

It depends on the message alone, so a caller who sends the same message again and again, with other
tensors behind it, is understood once.
"""

from collections.abc import Iterable, Sequence

import msgspec

from edge_agent.inference import json_data, v2_messages
from edge_agent.inference.errors import RequestError
from edge_agent.inference.inference_request import InferenceRequest, Slice, checked_elements
from edge_agent.inference.tensors import Data, Tensor, described, size_bytes
from fleet_protocol.manifest import Datatype

_DATATYPES: dict[str, Datatype] = {datatype.value: datatype for datatype in Datatype}
_CHECKED = frozenset({Datatype.BOOL, Datatype.BYTES})


class _Input(msgspec.Struct, frozen=True):
    """One input; either it has a text, or its data come from elsewhere."""

    name: str
    datatype: Datatype
    shape: list[int]
    text: msgspec.Raw | None
    checked: bool


class Meaning(msgspec.Struct, frozen=True, kw_only=True):
    """A message that is sound in itself.

    Attributes:
        binary_sizes: how much binary data of each input follow the message.
    """

    binary_sizes: list[int]
    inputs: list[_Input]
    wishes: InferenceRequest

    def request(self, segments: Iterable[Data]) -> InferenceRequest:
        """Return the request.

        Args:
            segments: the binary data of each input, empty for one that has none.

        Raises:
            RequestError: the data of an input are not what the message says.
        """
        tensors = [
            _tensor(entry, segment) for entry, segment in zip(self.inputs, segments, strict=True)
        ]
        return msgspec.structs.replace(self.wishes, inputs=tensors)


def understand(message: v2_messages.Request, *, shared_memory: bool) -> Meaning:
    """Return what a message asks for.

    Args:
        message: as it came, its types checked.
        shared_memory: whether tensors may lie in shared memory.

    Raises:
        RequestError: it is not one that could be run; the message says where and why.
    """
    _check_no_sequence(message.parameters)
    shared_inputs = _shared(message.inputs, "input", enabled=shared_memory)
    names: set[str] = set()
    for entry in message.inputs:
        if entry.name in names:
            raise RequestError(f"input {entry.name!r} is given twice")
        names.add(entry.name)
    return Meaning(
        binary_sizes=[entry.parameters.binary_data_size or 0 for entry in message.inputs],
        inputs=[_input(entry) for entry in message.inputs],
        wishes=InferenceRequest(
            id=message.id,
            inputs=[],
            outputs=_requested_outputs(message),
            binary_output=message.parameters.binary_data_output,
            timeout_us=message.parameters.timeout,
            priority=message.parameters.priority,
            classes=_classes(message.outputs),
            shared_inputs=shared_inputs,
            shared_bytes=sum(place.byte_size for place in shared_inputs.values()),
            shared_outputs=_shared(message.outputs, "output", enabled=shared_memory),
        ),
    )


def _check_no_sequence(parameters: v2_messages.RequestParameters) -> None:
    for name in ("sequence_id", "sequence_start", "sequence_end"):
        if getattr(parameters, name):
            raise RequestError(
                f"parameter {name}: calls that share a state are not offered here, every call "
                "stands for itself; leave it out"
            )


def _input(entry: v2_messages.Input) -> _Input:
    datatype = _DATATYPES.get(entry.datatype)
    if datatype is None:
        raise RequestError(
            f"input {entry.name!r} has datatype {entry.datatype[:40]!r}; known are "
            f"{', '.join(_DATATYPES)}"
        )
    parameters = entry.parameters
    has_text = bool(memoryview(entry.data))
    shared = parameters.shared_memory_region is not None
    if has_text + (parameters.binary_data_size is not None) + shared != 1:
        raise RequestError(
            f"input {entry.name!r} needs either data or binary_data_size or shared_memory_region"
        )
    if not has_text:
        declared = parameters.shared_memory_byte_size if shared else parameters.binary_data_size
        expected = size_bytes(datatype, entry.shape)
        if datatype is not Datatype.BYTES and declared != expected:
            raise RequestError(
                f"input {entry.name!r} declares {declared} bytes of binary data, "
                f"{described(datatype, entry.shape)} takes {expected}"
            )
    return _Input(
        name=entry.name,
        datatype=datatype,
        shape=entry.shape,
        text=entry.data if has_text else None,
        checked=datatype in _CHECKED and not shared,
    )


def _tensor(entry: _Input, segment: Data) -> Tensor:
    if entry.text is not None:
        data: Data = json_data.to_bytes(
            memoryview(entry.text), name=entry.name, datatype=entry.datatype, shape=entry.shape
        )
        return Tensor(name=entry.name, datatype=entry.datatype, shape=entry.shape, data=data)
    tensor = Tensor(name=entry.name, datatype=entry.datatype, shape=entry.shape, data=segment)
    return checked_elements(tensor) if entry.checked else tensor


def _requested_outputs(message: v2_messages.Request) -> dict[str, bool] | None:
    if not message.outputs:
        return None
    requested: dict[str, bool] = {}
    for output in message.outputs:
        if output.name in requested:
            raise RequestError(f"output {output.name!r} is requested twice")
        binary = output.parameters.binary_data
        requested[output.name] = message.parameters.binary_data_output if binary is None else binary
    return requested


def _classes(outputs: Sequence[v2_messages.RequestedOutput]) -> dict[str, int]:
    classes: dict[str, int] = {}
    for output in outputs:
        if output.parameters.classification:
            if output.parameters.shared_memory_region is not None:
                raise RequestError(
                    f"output {output.name!r}: classes cannot be put into shared memory"
                )
            classes[output.name] = output.parameters.classification
    return classes


def _shared(
    entries: Sequence[v2_messages.Input] | Sequence[v2_messages.RequestedOutput],
    kind: str,
    *,
    enabled: bool,
) -> dict[str, Slice]:
    places: dict[str, Slice] = {}
    for entry in entries:
        parameters = entry.parameters
        if parameters.shared_memory_region is None:
            continue
        if not enabled:
            raise RequestError(
                f"{kind} {entry.name!r}: shared memory is not enabled here "
                "(setting runtime.shared_memory)"
            )
        if parameters.shared_memory_byte_size is None:
            raise RequestError(f"{kind} {entry.name!r} needs shared_memory_byte_size")
        places[entry.name] = Slice(
            region=parameters.shared_memory_region,
            offset=parameters.shared_memory_offset,
            byte_size=parameters.shared_memory_byte_size,
        )
    return places
