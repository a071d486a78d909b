"""ONNX files of one node, written as protobuf by hand: no test needs the onnx package for them.

Source of the field numbers: onnx/onnx.proto.
"""

from collections.abc import Sequence
from hashlib import sha256

from edge_agent.runtime_api import ActiveRelease
from edge_agent.state_dir import StateDir
from fleet_protocol.manifest import Datatype, Format, TensorSpec

_D = Datatype
_ELEMENT_TYPES = {
    _D.FP32: 1, _D.UINT8: 2, _D.INT8: 3, _D.UINT16: 4, _D.INT16: 5, _D.INT32: 6, _D.INT64: 7,
    _D.BYTES: 8, _D.BOOL: 9, _D.FP16: 10, _D.FP64: 11, _D.UINT32: 12, _D.UINT64: 13,
}  # fmt: skip
_IR_VERSION = 8
_INTEGER = 2
_OPSET = 17


def one_node(
    operator: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    text: str = "",
    **attributes: int,
) -> bytes:
    """Return a model that is one operator from the inputs to the outputs, and carries a text."""
    node = b"".join(
        [
            *(_text(1, spec.name) for spec in inputs),
            *(_text(2, spec.name) for spec in outputs),
            _text(4, operator),
            *(_bytes(5, _attribute(name, value)) for name, value in attributes.items()),
        ]
    )
    graph = b"".join(
        [
            _bytes(1, node),
            _text(2, operator),
            *(_bytes(11, _value(spec)) for spec in {spec.name: spec for spec in inputs}.values()),
            *(_bytes(12, _value(spec)) for spec in outputs),
        ]
    )
    opset = _text(1, "") + _number(2, _OPSET)
    said = _text(6, text) if text else b""
    return _number(1, _IR_VERSION) + said + _bytes(7, graph) + _bytes(8, opset)


def identity_release(
    state: StateDir,
    family: str,
    datatype: Datatype,
    shape: Sequence[int],
    *,
    labels: Sequence[str] = (),
) -> ActiveRelease:
    """Put a model among the blobs that returns its input ``x`` as ``y``."""
    given = TensorSpec(name="x", datatype=datatype, shape=list(shape))
    returned = TensorSpec(name="y", datatype=datatype, shape=list(shape), labels=list(labels))
    return one_node_release(state, family, "Identity", [given], [returned])


def one_node_release(
    state: StateDir,
    family: str,
    operator: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    **attributes: int,
) -> ActiveRelease:
    """Put a model of one operator among the blobs."""
    content = one_node(operator, inputs, outputs, text="", **attributes)
    digest = sha256(content).hexdigest()
    state.create()
    state.blob(digest).write_bytes(content)
    return ActiveRelease(
        family=family,
        version="1.0.0",
        variant="plain",
        format=Format.ONNX,
        accelerator="cpu",
        sha256=digest,
        inputs=list(inputs),
        outputs=list(outputs),
    )


def _value(spec: TensorSpec) -> bytes:
    sizes = b"".join(
        _bytes(1, _text(2, f"free_{at}") if size == -1 else _number(1, size))
        for at, size in enumerate(spec.shape)
    )
    tensor_type = _number(1, _ELEMENT_TYPES[spec.datatype]) + _bytes(2, sizes)
    return _text(1, spec.name) + _bytes(2, _bytes(1, tensor_type))


def _attribute(name: str, value: int) -> bytes:
    return _text(1, name) + _number(3, value) + _number(20, _INTEGER)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
