"""An inference request as the runtime has it, whatever protocol carried it."""

import math
from collections.abc import Sequence

import msgspec

from edge_agent.inference.errors import RequestError
from edge_agent.inference.tensors import Tensor
from fleet_protocol import bytes_tensor
from fleet_protocol.errors import ProtocolError
from fleet_protocol.manifest import Datatype

MAX_ELEMENTS = 1 << 16
"""Of one BYTES input: they are walked one by one, which keeps everybody else waiting."""


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """A place in a registered shared memory region.

    Attributes:
        offset: from the beginning of the region.
    """

    region: str
    offset: int
    byte_size: int


class InferenceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request whose tensors are sound in themselves.

    Requests with equal messages share what is in them: nobody changes it.

    Attributes:
        id: the caller's, returned with the answer; empty if there is none.
        outputs: names in the order wanted, each with "as binary data"; None for all outputs.
        binary_output: how outputs travel when ``outputs`` does not say.
        timeout_us: from the arrival of the request to its answer; 0 for no limit.
        priority: 1 is first; 0 for the default.
        classes: outputs of which so many of the highest classes are wanted instead of the values.
        shared_inputs: inputs that lie in shared memory; their data are empty until
            `shared_memory.Regions.filled`.
        shared_bytes: of these inputs together.
        shared_outputs: outputs that shall be put into shared memory.
    """

    id: str
    inputs: list[Tensor]
    outputs: dict[str, bool] | None
    binary_output: bool
    timeout_us: int = 0
    priority: int = 0
    classes: dict[str, int] = {}
    shared_inputs: dict[str, Slice] = {}
    shared_bytes: int = 0
    shared_outputs: dict[str, Slice] = {}

    def wanted(self, outputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the outputs that are wanted, in that order.

        Args:
            outputs: all of the model, among them every one that the request names.
        """
        if self.outputs is None:
            return outputs
        by_name = {tensor.name: tensor for tensor in outputs}
        return [by_name[name] for name in self.outputs]

    def as_binary(self, output: str) -> bool:
        """Say whether an output that is wanted travels as binary data."""
        return self.binary_output if self.outputs is None else self.outputs[output]


def checked_elements(tensor: Tensor) -> Tensor:
    """Return a tensor whose data are sound; of most datatypes all are.

    Raises:
        RequestError: a BOOL that is neither 0 nor 1, or BYTES that are no elements.
    """
    if tensor.datatype is Datatype.BOOL and bytes(tensor.data).translate(None, b"\0\1"):
        raise RequestError(f"input {tensor.name!r} is BOOL and has bytes other than 0 and 1")
    if tensor.datatype is Datatype.BYTES:
        count = math.prod(tensor.shape)
        if count > MAX_ELEMENTS:
            raise RequestError(
                f"input {tensor.name!r} has {count} elements, at most {MAX_ELEMENTS} are read"
            )
        try:
            bytes_tensor.unpack(tensor.data, count)
        except ProtocolError as error:
            raise RequestError(f"input {tensor.name!r} is no BYTES tensor: {error}") from error
    return tensor
