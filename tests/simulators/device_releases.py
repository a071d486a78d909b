"""Small releases for tests of the device: manifests with golden vectors, and their one file."""

import base64
import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from fleet_protocol import manifest as manifests
from fleet_protocol.manifest import (
    Acceptance,
    Accuracy,
    Datatype,
    Format,
    Golden,
    GoldenTensor,
    GoldenVector,
    Manifest,
    TensorSpec,
    Tolerance,
    Variant,
)
from fleet_protocol.names import target_path
from tests.simulators.onnx_files import one_node

LABELS = ["cat", "dog", "owl"]


def fp32(name: str, values: Sequence[float], shape: list[int]) -> GoldenTensor:
    """Return a golden tensor of 32-bit floats."""
    data = base64.b64encode(array("f", values).tobytes()).decode()
    return GoldenTensor(name=name, datatype=Datatype.FP32, shape=shape, data_base64=data)


@dataclass(frozen=True)
class Release:
    """One release as its publisher has it."""

    manifest: Manifest
    model: bytes
    other_files: dict[str, bytes] = field(default_factory=dict)

    @property
    def manifest_bytes(self) -> bytes:
        return manifests.encode(self.manifest)

    @property
    def manifest_path(self) -> str:
        return target_path(self.manifest.family, self.manifest.version, "manifest.json")

    @property
    def model_path(self) -> str:
        return target_path(self.manifest.family, self.manifest.version, "model.onnx")

    def targets(self) -> dict[str, bytes]:
        others = {
            target_path(self.manifest.family, self.manifest.version, name): content
            for name, content in self.other_files.items()
        }
        return {self.manifest_path: self.manifest_bytes, self.model_path: self.model, **others}


def doubling(text: str) -> bytes:
    """Return a model file for `release` that runtimes can load, told from others by its text."""
    given = TensorSpec(name="x", datatype=Datatype.FP32, shape=[-1, 3])
    returned = TensorSpec(name="y", datatype=Datatype.FP32, shape=[-1, 3])
    return one_node("Add", [given, given], [returned], text=f"{text} " * 1500)


def with_more_variants(made: Release, *names: str, accelerator: str = "cpu") -> Release:
    """Return a release that also has variants of these names, with the same golden answers."""
    (first,) = made.manifest.variants
    contents = {f"{name}.onnx": f"{name} of {made.manifest.version}".encode() for name in names}
    more = [
        msgspec.structs.replace(
            first,
            name=name,
            file=f"{name}.onnx",
            accelerators=[accelerator],
            length=len(contents[f"{name}.onnx"]),
            sha256=hashlib.sha256(contents[f"{name}.onnx"]).hexdigest(),
        )
        for name in names
    ]
    manifest = msgspec.structs.replace(made.manifest, variants=[first, *more])
    return Release(manifest, made.model, contents)


def release(  # noqa: PLR0913 (what a test varies, by keyword)
    version: str = "1.0.0",
    *,
    family: str = "animals",
    security_counter: int = 0,
    accelerators: Sequence[str] = ("cpu",),
    acceptance: Acceptance | None = None,
    model: bytes | None = None,
    memory_bytes: int = 1000,
) -> Release:
    """Return a release whose model doubles three numbers."""
    content = model if model is not None else f"model of {family} {version}".encode() * 1000
    spec = TensorSpec(name="x", datatype=Datatype.FP32, shape=[-1, 3])
    out = TensorSpec(name="y", datatype=Datatype.FP32, shape=[-1, 3], labels=LABELS)
    vectors = [
        GoldenVector(
            inputs=[fp32("x", values, [1, 3])],
            outputs=[fp32("y", [2 * value for value in values], [1, 3])],
        )
        for values in ([1.0, 2.0, 3.0], [3.0, 1.0, 2.0])
    ]
    variant = Variant(
        name="fp32",
        file="model.onnx",
        format=Format.ONNX,
        precision="fp32",
        accelerators=list(accelerators),
        length=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        accuracy=Accuracy(metric="top1", value=0.9, sample_count=100),
        memory_bytes=memory_bytes,
        golden=Golden(vectors=vectors, tolerance=Tolerance(max_abs_error=0.01)),
    )
    return Release(
        Manifest(
            family=family,
            version=version,
            security_counter=security_counter,
            inputs=[spec],
            outputs=[out],
            variants=[variant],
            acceptance=acceptance or Acceptance(),
        ),
        content,
    )
