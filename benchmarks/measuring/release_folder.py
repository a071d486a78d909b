"""A folder with one signed release as a device finds it at a server: metadata, manifest, model."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from edge_agent.control.server_client import METADATA_ROUTE, TARGETS_ROUTE
from fleet_protocol import manifest as manifests
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
from fleet_protocol.names import target_path

FAMILY = "model"
VERSION = "3.0.0"

_Signed = TypeVar("_Signed", Root, Snapshot, Targets, Timestamp)


def write(folder: Path, model: Path) -> bytes:
    """Write all that a device asks for; return the root metadata that it has to trust.

    A file lies where the path of its request says.
    """
    files = {"manifest.json": _manifest(model), model.name: model.read_bytes()}
    targets = {}
    for name, content in files.items():
        path = target_path(FAMILY, VERSION, name)
        targets[path] = TargetFile.from_data(path, content, ["sha256"])
        digest = hashlib.sha256(content).hexdigest()
        _put(folder, f"{TARGETS_ROUTE}models/{FAMILY}/{VERSION}/{digest}.{name}", content)
    metadata = _metadata(targets)
    for name, content in metadata.items():
        _put(folder, METADATA_ROUTE + name, content)
    return metadata["1.root.json"]


def _put(folder: Path, route: str, content: bytes) -> None:
    path = folder / route.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _metadata(targets: dict[str, TargetFile]) -> dict[str, bytes]:
    expires = datetime.now(UTC) + timedelta(days=30)
    roles = ("root", "targets", "snapshot", "timestamp", FAMILY)
    keys = {role: CryptoSigner.generate_ed25519() for role in roles}
    root = Root(expires=expires, consistent_snapshot=True)
    for role in roles[:-1]:
        root.add_key(keys[role].public_key, role)
    publisher = keys[FAMILY].public_key
    paths = [f"models/{FAMILY}/*/*"]
    delegated = DelegatedRole(FAMILY, [publisher.keyid], 1, terminating=True, paths=paths)
    top = Targets(
        expires=expires,
        delegations=Delegations(keys={publisher.keyid: publisher}, roles={FAMILY: delegated}),
    )
    versions = {"targets.json": MetaFile(1), f"{FAMILY}.json": MetaFile(1)}
    return {
        "1.root.json": _signed(root, keys["root"]),
        "1.targets.json": _signed(top, keys["targets"]),
        f"1.{FAMILY}.json": _signed(Targets(expires=expires, targets=targets), keys[FAMILY]),
        "1.snapshot.json": _signed(Snapshot(expires=expires, meta=versions), keys["snapshot"]),
        "timestamp.json": _signed(
            Timestamp(expires=expires, snapshot_meta=MetaFile(1)), keys["timestamp"]
        ),
    }


def _signed(content: _Signed, key: CryptoSigner) -> bytes:
    metadata = Metadata(content)
    metadata.sign(key)
    return metadata.to_bytes()


def _manifest(model: Path) -> bytes:
    content = model.read_bytes()
    spec = TensorSpec(name="x", datatype=Datatype.FP32, shape=[1])
    tensor = GoldenTensor(
        name="x",
        datatype=Datatype.FP32,
        shape=[1],
        data_base64=base64.b64encode(bytes(4)).decode(),
    )
    variant = Variant(
        name=model.stem,
        file=model.name,
        format=Format.ONNX if model.suffix == ".onnx" else Format.TFLITE,
        precision="int8" if model.stem == "int8" else "fp32",
        accelerators=["cpu"],
        length=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        accuracy=Accuracy(metric="top1", value=0.9, sample_count=1),
        memory_bytes=1000,
        golden=Golden(
            vectors=[GoldenVector(inputs=[tensor], outputs=[tensor])],
            tolerance=Tolerance(max_abs_error=1.0),
        ),
    )
    return manifests.encode(
        Manifest(family=FAMILY, version=VERSION, inputs=[spec], outputs=[spec], variants=[variant])
    )
