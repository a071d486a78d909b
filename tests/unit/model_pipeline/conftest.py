"""Bundles of a model that needs no inference library, and an authority with its server."""

import base64
import hashlib
import shutil
import struct
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fleet_protocol.manifest import (
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
from model_pipeline import bundle
from model_pipeline.bundle import Bundle
from provisioning import ceremony
from provisioning.layout import Authority
from tests.simulators.release_server import ReleaseServer

PASSPHRASE = b"correct horse battery"


def golden_tensor(name: str, shape: list[int], values: Sequence[float]) -> GoldenTensor:
    """Return a tensor of 32-bit numbers."""
    data = struct.pack(f"<{len(values)}f", *values)
    return GoldenTensor(
        name=name,
        datatype=Datatype.FP32,
        shape=shape,
        data_base64=base64.b64encode(data).decode(),
    )


def manifest_for(content: bytes, *, version: str = "1.0.0", family: str = "letters") -> Manifest:
    """Return the manifest of a release whose one file has this content."""
    tensor = golden_tensor("x", [1], [0.0])
    spec = TensorSpec(name="x", datatype=Datatype.FP32, shape=[-1])
    return Manifest(
        family=family,
        version=version,
        inputs=[spec],
        outputs=[spec],
        variants=[
            Variant(
                name="fp32",
                file="model.onnx",
                format=Format.ONNX,
                precision="fp32",
                accelerators=["cpu"],
                length=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
                accuracy=Accuracy(metric="top1", value=0.5, sample_count=10),
                memory_bytes=1000,
                golden=Golden(
                    vectors=[GoldenVector(inputs=[tensor], outputs=[tensor])],
                    tolerance=Tolerance(max_abs_error=0.1),
                ),
            )
        ],
    )


def make_bundle(folder: Path, content: bytes, *, version: str = "1.0.0") -> Bundle:
    """Write a bundle whose one file has this content."""
    (folder / "model.onnx").write_bytes(content)
    manifest = manifest_for(content, version=version)
    files = {"model.onnx": folder / "model.onnx"}
    return bundle.write(folder / f"{version}.bundle", manifest, files)


@pytest.fixture(scope="session")
def fresh_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody has used; tests copy it."""
    plan = ceremony.Plan.of(families=["letters", "other"], server_names=["localhost"])
    out = tmp_path_factory.mktemp("fresh") / "authority"
    return ceremony.create(out, plan, passphrase=PASSPHRASE, now=datetime.now(UTC))


@pytest.fixture
def authority(fresh_authority: Authority, tmp_path: Path) -> Authority:
    """An authority of the test's own."""
    return Authority(shutil.copytree(fresh_authority.root, tmp_path / "authority"))


@pytest.fixture
def server(authority: Authority) -> Iterator[ReleaseServer]:
    """A running server of that authority."""
    with ReleaseServer(authority.server).running() as running:
        yield running
