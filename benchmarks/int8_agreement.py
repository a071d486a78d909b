"""How far the INT8 files of EfficientNet-Lite0 agree with FP32.

The benchmarks should serve a network that still works, not one that is merely fast.

Accuracy would need labelled images, which the benchmarks do not have; the images here are crops of
photographs that the calibration has not seen (see ``models/recipes/photographs.py``).
"""

from benchmarks.models.bench_models import agreement
from benchmarks.report import Row, at_least, figure

HOW = "make bench NAME=int8_agreement (120 crops of 6 photographs, all against the FP32 ONNX file)"
_MIN_COSINE = 0.98


def run() -> list[Row]:
    """Return what the recipe measured when it built the files."""
    rows = []
    for file, measured in agreement().items():
        share = f"share of {measured['images']:.0f}"
        sure = f"share of {measured['sure_images']:.0f}"
        cosine = round(measured["cosine_mean"], 4)
        rows += [
            at_least(f"{file}: cosine of the logits, mean", cosine, "", _MIN_COSINE, HOW),
            figure(f"{file}: cosine, worst", round(measured["cosine_min"], 4), "", HOW),
            figure(f"{file}: same class", round(measured["top1"], 4), share, HOW),
            figure(
                f"{file}: FP32's class among the first five",
                round(measured["fp32_class_in_top5"], 4),
                share,
                HOW,
            ),
            figure(
                f"{file}: same class where FP32 is sure (p >= 0.5)",
                round(measured["sure_top1"], 4),
                sure,
                HOW,
            ),
        ]
    return rows
