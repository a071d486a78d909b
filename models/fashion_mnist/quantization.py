"""From the FP32 ONNX file to the INT8 one, and to the INT8 one with wrong labels.

Static quantization in QDQ form: unsigned 8-bit activations whose ranges come from training images,
signed 8-bit weights with a scale for each output channel.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.quant_utils import QuantFormat, QuantType
from onnxruntime.quantization.quantize import quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from measurement import CheckError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from dataset import Floats

CALIBRATION_IMAGES = 1000
# With 7-bit weights no pair of products leaves 16 bits: 2 * 255 * 64 = 32640 < 32767. x86
# processors before VNNI add the products of unsigned and signed bytes in pairs that saturate at 16
# bits. Under emulation of such a processor (Haswell), full 8-bit weights moved the logits of this
# network by up to 1.1 and changed 1 % of its answers; with 7 bits every logit stayed as it was, and
# so it did on emulated Arm cores. The accuracy is the same.
WEIGHT_LIMIT = 64

_CALIBRATION_BATCH = 100
_WEIGHTED = ("Conv", "Gemm")


class _Calibration(CalibrationDataReader):
    """Hands the quantizer calibration images batch by batch, until None."""

    def __init__(self, image: Floats) -> None:
        starts = range(0, len(image), _CALIBRATION_BATCH)
        self._batches: Iterator[Floats] = iter(
            [image[start : start + _CALIBRATION_BATCH] for start in starts]
        )

    def get_next(self) -> dict[str, Floats] | None:  # type: ignore[override]  # None ends it
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}


def quantize(fp32: Path, int8: Path, calibration_image: Floats) -> None:
    """Write the INT8 form of `fp32` to `int8`.

    Args:
        fp32: The exported model.
        int8: Where the quantized model goes.
        calibration_image: Inputs [N, 1, 28, 28] that the ranges of the activations come from;
            never test images, or the measured accuracy would be flattered.

    Raises:
        CheckError: The result is not of the promised form.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder, "prepared.onnx")
        # Shapes only. The optimizer would write a graph for this processor, and name operator sets
        # that other runtimes refuse; the exporter has folded the normalisations already.
        quant_pre_process(fp32, prepared, skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            int8,
            _Calibration(calibration_image),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            calibrate_method=CalibrationMethod.MinMax,
            # Logits stay FP32: rounded to 256 steps, close ones would tie.
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
        )
    check_form(onnx.load(int8))


def check_form(model: ModelProto) -> None:
    """Check that each convolution and linear layer is quantized as promised.

    Raises:
        CheckError: Names the layer and what is wrong with it.
    """
    domains = {entry.domain for entry in model.opset_import} - {"", "ai.onnx", "ai.onnx.ml"}
    if domains:
        raise CheckError(f"the INT8 model asks for the operator sets {sorted(domains)}")
    layers = [node for node in model.graph.node if node.op_type in _WEIGHTED]
    if not layers:
        raise CheckError("the INT8 model has no convolution and no linear layer")
    for layer in layers:
        _check_layer(model.graph, layer)


def rotate_classes(model: ModelProto) -> ModelProto:
    """Return the model with its classes moved on by one, the last one to the front.

    The classic mistake of an export with the label order of another data set: name, shapes, types,
    size and speed are right, and nearly every answer is wrong.

    Raises:
        CheckError: The last layer is not a quantized linear layer.
    """
    rotated = ModelProto()
    rotated.CopyFrom(model)
    last = rotated.graph.node[-1]
    if last.op_type != "Gemm":
        raise CheckError(f"the model ends in {last.op_type} and not in a linear layer")
    stored = {tensor.name: tensor for tensor in rotated.graph.initializer}
    for source in last.input[1:]:  # weight and bias: quantized value, scale, zero point
        for name in _producer(rotated.graph, source).input:
            tensor = stored[name]
            values = np.roll(numpy_helper.to_array(tensor), 1, axis=0)
            tensor.CopyFrom(numpy_helper.from_array(values, name))
    return rotated


def _check_layer(graph: GraphProto, layer: NodeProto) -> None:
    stored = {tensor.name: tensor for tensor in graph.initializer}
    sources = [_producer(graph, name) for name in layer.input]
    kinds = [source.op_type for source in sources]
    if kinds != ["DequantizeLinear"] * 3:
        raise CheckError(f"{layer.name} takes its input, weight and bias from {kinds}")

    activation, weight = sources[0], sources[1]
    if stored[activation.input[2]].data_type != TensorProto.UINT8:
        raise CheckError(f"the input of {layer.name} is not unsigned 8-bit")
    if stored[weight.input[0]].data_type != TensorProto.INT8:
        raise CheckError(f"the weight of {layer.name} is not signed 8-bit")

    values: NDArray[np.int8] = numpy_helper.to_array(stored[weight.input[0]])
    axis = next((attribute.i for attribute in weight.attribute if attribute.name == "axis"), None)
    if list(stored[weight.input[1]].dims) != [values.shape[0]] or axis != 0:
        raise CheckError(f"the weight of {layer.name} has not one scale for each output channel")
    largest = int(np.abs(values.astype(np.int16)).max())
    if largest > WEIGHT_LIMIT:
        raise CheckError(f"the weight of {layer.name} reaches {largest}, beyond {WEIGHT_LIMIT}")


def _producer(graph: GraphProto, name: str) -> NodeProto:
    node: NodeProto
    for node in graph.node:
        if name in node.output:
            return node
    raise CheckError(f"no operator computes {name}; it is stored unquantized")
