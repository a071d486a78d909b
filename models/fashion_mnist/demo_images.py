"""Which 1,000 test images the demo shows its devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dataset import Bytes
    from measurement import Flags

DEMO_IMAGES = 1000


def draw(
    labels: Bytes,
    fp32_right: Flags,
    int8_right: Flags,
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw a sample that has the accuracy of the whole test set, in random order.

    A plain random sample of 1,000 images has a standard error of 0.8 points of accuracy, more than
    the demo's limit for a device. So the sample is stratified over (FP32 right, INT8 right, class)
    by systematic sampling (Cochran, Sampling Techniques, chapter 8): the images are sorted by
    stratum, shuffled inside each, and every k-th is taken from a random start. Each stratum, and
    each run of neighbouring strata, then has its share to within one image. The order of the
    outcomes keeps the images that FP32 gets right together, and those that INT8 gets right.

    Args:
        labels: Class of each image, shape [N].
        fp32_right: Whether FP32 classifies it as labelled, shape [N].
        int8_right: Whether INT8 does, shape [N].
        random: Where the start and the order come from.
    """
    outcome = np.select(
        [~fp32_right & ~int8_right, ~fp32_right & int8_right, fp32_right & int8_right],
        [0, 1, 2],
        default=3,
    )
    shuffled = random.permutation(len(labels))
    stratified = shuffled[np.lexsort((labels[shuffled], outcome[shuffled]))]
    step = len(labels) / DEMO_IMAGES
    positions = random.uniform(0, step) + step * np.arange(DEMO_IMAGES)
    return random.permutation(stratified[positions.astype(np.int64)])
