"""The network: its layers, how it is trained and how it becomes an FP32 ONNX file.

Knows PyTorch and nothing of quantization or of measuring. The choices below (width, five epochs,
learning rate, label smoothing) were made on 6,000 training images held out for that; the test
images took no part in them.
"""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from dataset import LABELS, Floats, LabelledImages

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

OPSET = 18
# Mean and standard deviation of pixel / 255 over the 60,000 training images. They are part of the
# graph, so that no application can get them wrong.
PIXEL_MEAN = 0.2860
PIXEL_STD = 0.3530

_BATCH = 500


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides the weights, besides the data and the versions of the libraries."""

    seed: int = 20
    epochs: int = 5
    batch_size: int = 128
    peak_learning_rate: float = 4e-3
    weight_decay: float = 1e-2
    label_smoothing: float = 0.05
    mirrored: float = 0.5


class FashionNet(nn.Module):
    """Five 3x3 convolutions and one linear layer: pixels / 255 [N, 1, 28, 28] to logits [N, 10].

    Only operators whose INT8 form every common runtime has: convolution, ReLU, maximum, linear.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_convolution(1, 16),
            nn.MaxPool2d(2),
            *_convolution(16, 32),
            *_convolution(32, 32),
            nn.MaxPool2d(2),
            *_convolution(32, 64),
            *_convolution(64, 96),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(96 * 3 * 3, len(LABELS)),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Classify `image`, shape [N, 1, 28, 28] with values 0..1."""
        return cast("Tensor", self.layers((image - PIXEL_MEAN) / PIXEL_STD))


def parameter_count(network: nn.Module) -> int:
    """Count the trained numbers."""
    return sum(parameter.numel() for parameter in network.parameters())


def make_deterministic(seed: int) -> None:
    """Make PyTorch repeat itself on one kind of processor.

    One thread, because the order of a sum over threads is not fixed; on a network of this size a
    second thread costs more than it brings.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    torch.manual_seed(seed)


def train(data: LabelledImages, plan: TrainingPlan) -> FashionNet:
    """Train on all of `data` and return the network after the last epoch.

    No image decides when to stop, so none has to be held out.
    """
    make_deterministic(plan.seed)
    network = FashionNet()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=plan.peak_learning_rate, weight_decay=plan.weight_decay
    )
    steps_per_epoch = -(-len(data) // plan.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        plan.peak_learning_rate,
        total_steps=plan.epochs * steps_per_epoch,
        pct_start=0.25,
    )
    images = torch.from_numpy(data.images[:, np.newaxis].copy())
    labels = torch.from_numpy(data.labels.astype(np.int64))

    network.train()
    started = time.perf_counter()
    for epoch in range(1, plan.epochs + 1):
        loss_sum = 0.0
        order = torch.randperm(len(data))
        for batch in order.split(plan.batch_size):  # type: ignore[no-untyped-call]
            image = _mirror_some(images[batch].float() / 255, plan.mirrored)
            logits = network(image.contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(
                logits, labels[batch], label_smoothing=plan.label_smoothing
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            loss_sum += loss.item() * len(batch)
        logger.info(
            "  epoch %d of %d: loss %.4f, %.0f s so far",
            epoch,
            plan.epochs,
            loss_sum / len(data),
            time.perf_counter() - started,
        )
    network.eval()
    return network


def predict(network: FashionNet, image: Floats, dtype: torch.dtype = torch.float32) -> Floats:
    """Run the network itself, computing in `dtype`: input [N, 1, 28, 28], logits [N, 10]."""
    converted = copy.deepcopy(network).to(dtype)
    images = torch.from_numpy(image).to(dtype)
    starts = range(0, len(images), _BATCH)
    with torch.no_grad():
        batches = [converted(images[start : start + _BATCH]) for start in starts]
    return cast("Floats", torch.cat(batches).float().numpy())


def export_onnx(network: FashionNet, path: Path) -> None:
    """Write the network as FP32 ONNX with a free batch dimension.

    The exporter notes the stack trace of every operator, with paths of the machine that exported.
    That is dropped: it tells the reader of a published model nothing and would make two machines
    disagree about the bytes.
    """
    program = torch.onnx.export(
        network,
        (torch.zeros(2, 1, 28, 28),),
        dynamo=True,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
        opset_version=OPSET,
        verbose=False,
    )
    model = cast("torch.onnx.ONNXProgram", program).model_proto
    graph = model.graph
    for part in (
        model,
        graph,
        *graph.node,
        *graph.input,
        *graph.output,
        *graph.value_info,
        *graph.initializer,
    ):
        del part.metadata_props[:]
    graph.name = "fashion_mnist"
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _convolution(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    # No bias: the normalisation that follows has one, and the exporter folds both into the weights.
    return (
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


def _mirror_some(image: Tensor, share: float) -> Tensor:
    """Mirror a random share of the batch left to right: a shoe may point either way."""
    mirrored = torch.rand(len(image), 1, 1, 1) < share
    return torch.where(mirrored, image.flip(-1), image)
