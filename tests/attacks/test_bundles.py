"""Attacks by a bundle and by an upload: links, paths that lead out, bombs. No key is needed.

A bundle comes from whoever trained the model; reading it must not write anywhere. An upload comes
from whoever holds a publisher's API token, which is worth nothing without the publisher's key.
"""

import io
import os
import re
import tarfile
from pathlib import Path

import pytest

from fleet_protocol.manifest import encode
from model_pipeline import bundle
from model_pipeline.errors import BundleError
from tests.unit.model_pipeline.conftest import make_bundle, manifest_for

CONTENT = b"a model"


def entry(
    name: str, *, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b""
) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    padding = bytes(-len(content) % tarfile.BLOCKSIZE)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + padding


MANIFEST = encode(manifest_for(CONTENT))
END = bytes(2 * tarfile.BLOCKSIZE)
FIRST = entry("manifest.json", content=MANIFEST)
HOSTILE = {
    "a symbolic link": entry("model.onnx", kind=tarfile.SYMTYPE, link="/etc/passwd"),
    "a hard link": entry("model.onnx", kind=tarfile.LNKTYPE, link="manifest.json"),
    "a directory": entry("model.onnx", kind=tarfile.DIRTYPE),
    "a device": entry("model.onnx", kind=tarfile.CHRTYPE),
    "a pipe": entry("model.onnx", kind=tarfile.FIFOTYPE),
    "a sparse file": entry("model.onnx", kind=tarfile.GNUTYPE_SPARSE, content=CONTENT),
    "a path that leads out": entry("../../../../tmp/model.onnx", content=CONTENT),
    "an absolute path": entry("/tmp/model.onnx", content=CONTENT),  # noqa: S108 (refused)
    "a name with a slash": entry("sub/model.onnx", content=CONTENT),
    "a file twice": entry("model.onnx", content=CONTENT) * 2,
    "a file that nobody named": entry("model.onnx", content=CONTENT) + entry("x", content=b"x"),
    "more content than stated": entry("model.onnx", content=CONTENT + b"!"),
    "another content": entry("model.onnx", content=b"A model"),
}
SAID = {
    "a symbolic link": "'model.onnx' is a symbolic link",
    "a hard link": "'model.onnx' is a hard link",
    "a directory": "'model.onnx' is a directory",
    "a device": "'model.onnx' is a device",
    "a pipe": "'model.onnx' is a pipe",
    "a sparse file": "'model.onnx' is a sparse file",
    "a path that leads out": "'../../../../tmp/model.onnx' is not a file name",
    "an absolute path": "'/tmp/model.onnx' is not a file name",
    "a name with a slash": "'sub/model.onnx' is not a file name",
    "a file twice": "holds more than its manifest names",
    "a file that nobody named": "holds more than its manifest names",
    "more content than stated": "claims 8 bytes, expected are at most 7",
    "another content": "where the manifest says",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_bundle_is_refused_and_writes_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / "hostile.bundle"
    path.write_bytes(FIRST + HOSTILE[name] + END)
    with pytest.raises(BundleError, match=re.escape(SAID[name])):
        bundle.read(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_length_without_end_is_not_read(tmp_path: Path) -> None:
    """The header states 8 GiB; what is read is bounded by what a manifest may have."""
    info = tarfile.TarInfo("manifest.json")
    info.size = 8 * 1024**3 - 1
    path = tmp_path / "endless.bundle"
    path.write_bytes(info.tobuf(tarfile.USTAR_FORMAT))
    os.truncate(path, info.size)
    with pytest.raises(BundleError, match=r"at most|bytes"):
        bundle.read(path)


@pytest.mark.parametrize("file", ["../x", "/etc/x", "a/b", ".hidden", "x\n", "a" * 200, ""])
def test_a_manifest_that_names_a_path_is_refused(tmp_path: Path, file: str) -> None:
    text = MANIFEST.replace(b'"model.onnx"', repr(file).replace("'", '"').encode())
    path = tmp_path / "hostile.bundle"
    archive = entry("manifest.json", content=text) + entry("model.onnx", content=CONTENT)
    path.write_bytes(archive + END)
    with pytest.raises(BundleError, match="file"):
        bundle.read(path)


def test_a_bundle_that_is_compressed_is_none(tmp_path: Path) -> None:
    """Nothing is unpacked, so there is no bomb."""
    made = make_bundle(tmp_path, CONTENT)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(made.path, "model.onnx")
    path = tmp_path / "packed.bundle"
    path.write_bytes(packed.getvalue())
    with pytest.raises(BundleError):
        bundle.read(path)
