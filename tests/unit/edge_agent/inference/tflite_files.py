"""Small TFLite files, written with the schema that comes with LiteRT."""

import hashlib
from pathlib import Path

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from edge_agent.runtime_api import ActiveRelease
from edge_agent.state_dir import StateDir
from fleet_protocol.manifest import Datatype, Format, TensorSpec

EDGE_TPU_OP = b"edgetpu-custom-op"


def relu(*, width: int = 3, free_batch: bool = True, signature: bool = False) -> bytes:
    """Return a model ``y = max(x, 0)`` for rows of ``width`` floats."""
    code = schema.OperatorCodeT()
    code.deprecatedBuiltinCode = code.builtinCode = schema.BuiltinOperator.RELU
    return _model(code, width=width, free_batch=free_batch, signature=signature)


def edge_tpu() -> bytes:
    """Return a model that only the Edge TPU's delegate can run, as its compiler leaves them."""
    code = schema.OperatorCodeT()
    code.deprecatedBuiltinCode = code.builtinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = EDGE_TPU_OP
    return _model(code, width=3, free_batch=False, signature=False)


def _model(code: object, *, width: int, free_batch: bool, signature: bool) -> bytes:
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0], [1]
    graph = schema.SubGraphT()
    graph.tensors = [
        _tensor(b"serving_default_x:0", width, free_batch=free_batch),
        _tensor(b"StatefulPartitionedCall:0", width, free_batch=free_batch),
    ]
    graph.inputs, graph.outputs, graph.operators = [0], [1], [operator]
    model = schema.ModelT()
    model.version = 3
    model.description = "made by a test"
    model.operatorCodes = [code]
    model.subgraphs = [graph]
    model.buffers = [schema.BufferT()]
    if signature:
        model.signatureDefs = [_signature()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _tensor(name: bytes, width: int, *, free_batch: bool) -> object:
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.buffer = name, schema.TensorType.FLOAT32, 0
    tensor.shape = [1, width]
    if free_batch:
        tensor.shapeSignature = [-1, width]
    return tensor


def _signature() -> object:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs, signature.outputs = [_map(b"features", 0)], [_map(b"scores", 1)]
    return signature


def _map(name: bytes, index: int) -> object:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry


def tflite_release(  # noqa: PLR0913 (what a test varies, by keyword)
    state: StateDir,
    content: bytes,
    *,
    shape: list[int],
    input_name: str = "x",
    output_name: str = "y",
    accelerator: str = "cpu",
    family: str = "rows",
) -> ActiveRelease:
    """Put a file among the blobs and return the release that names it."""
    sha256 = hashlib.sha256(content).hexdigest()
    state.create()
    state.blob(sha256).write_bytes(content)
    return ActiveRelease(
        family=family,
        version="1.0.0",
        variant="fp32",
        format=Format.TFLITE,
        accelerator=accelerator,
        sha256=sha256,
        inputs=[TensorSpec(name=input_name, datatype=Datatype.FP32, shape=shape)],
        outputs=[TensorSpec(name=output_name, datatype=Datatype.FP32, shape=shape)],
    )


def blob(state: StateDir, release: ActiveRelease) -> Path:
    """Return where the release's file lies."""
    return state.blob(release.sha256)
