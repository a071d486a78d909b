"""Lets EfficientNet-Lite0 in INT8 take an image's pixels; in the environment of ``model_recipes``.

The file's first step quantizes (rgb - 127) / 128 with scale 1/128 and zero point 127: what comes
out is the pixel. A camera's bytes can therefore go in as they are, a quarter of what FP32 takes,
and the answers are the same to the last bit. Integer-only files have such inputs.
"""

# mypy: ignore-errors
# The libraries are those of another environment; the project's has none of them to check against.

import argparse
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

_SCALE, _ZERO_POINT = 1 / 128, 127


def main() -> None:
    """Write the model and a sample into a folder, once they answer as the file they come from."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("quantized", type=Path, help="folder of the recipe efficientnet_lite0")
    options = parser.parse_args()
    source = options.quantized / "int8.onnx"
    floats = np.load(options.quantized / "sample.npy")
    pixels = np.clip(np.rint(floats / _SCALE) + _ZERO_POINT, 0, 255).astype(np.uint8)
    target = options.folder / "int8.onnx"
    onnx.save(with_pixels(onnx.load(source)), target)
    if not np.array_equal(_answer(source, floats), _answer(target, pixels)):
        raise SystemExit("the file that takes pixels gives another answer")
    np.save(options.folder / "sample.npy", pixels)


def with_pixels(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take the quantization of the input off a model.

    Raises:
        SystemExit: it makes something else of the input than the pixels.
    """
    graph = model.graph
    (image,) = graph.input
    (quantize,) = (node for node in graph.node if image.name in node.input)
    numbers = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    if [numbers[name].item() for name in quantize.input[1:]] != [_SCALE, _ZERO_POINT]:
        raise SystemExit(f"{quantize.name} does not turn (rgb - 127) / 128 into the pixels")
    (quantized,) = quantize.output
    graph.node.remove(quantize)
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name == quantized:
                node.input[at] = image.name
    image.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    onnx.checker.check_model(model)
    return model


def _answer(path: Path, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


if __name__ == "__main__":
    main()
