"""Writes a model that takes an image's tensor and computes nothing: its first eight values."""

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def main() -> None:
    """Write ``model.onnx`` and a sample input into a folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    bounds = {"starts": [0, 0, 0, 0], "ends": [1, 1, 1, 8]}
    graph = helper.make_graph(
        [helper.make_node("Slice", ["image", *bounds], ["values"])],
        "first_values",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 224, 224])],
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, [1, 1, 1, 8])],
        [numpy_helper.from_array(np.array(value), name) for name, value in bounds.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, producer_name="skerry"
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "model.onnx")
    sample = np.random.default_rng(0).standard_normal((1, 3, 224, 224), np.float32)
    np.save(folder / "sample.npy", sample)


if __name__ == "__main__":
    main()
