"""The committed reference models as releases in a state directory."""

import hashlib
from pathlib import Path

import msgspec

from edge_agent.runtime_api import ActiveRelease, ActiveSet
from edge_agent.state_dir import StateDir
from fleet_protocol.manifest import Datatype, Format, TensorSpec

MODELS = Path(__file__).parents[4] / "models" / "fashion_mnist"
LABELS = [f"class-{index}" for index in range(10)]
FAMILY = "fashion_mnist"


def reference_release(
    state: StateDir, *, version: str = "1.0.0", precision: str = "fp32", family: str = FAMILY
) -> ActiveRelease:
    """Put a reference model among the blobs and return the release that names it."""
    content = (MODELS / f"fashion_mnist-{precision}.onnx").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    state.create()
    state.blob(sha256).write_bytes(content)
    return ActiveRelease(
        family=family,
        version=version,
        variant=precision,
        format=Format.ONNX,
        accelerator="cpu",
        sha256=sha256,
        inputs=[TensorSpec(name="image", datatype=Datatype.FP32, shape=[-1, 1, 28, 28])],
        outputs=[TensorSpec(name="logits", datatype=Datatype.FP32, shape=[-1, 10], labels=LABELS)],
    )


def commit(state: StateDir, *releases: ActiveRelease) -> None:
    """Write ``active.json`` as control does."""
    state.create()
    state.active_set.write_bytes(msgspec.json.encode(ActiveSet(releases=list(releases))))
