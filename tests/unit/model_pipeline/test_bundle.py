"""The bundle file: what is written is read back, and nothing else is accepted."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet_protocol import manifest as manifests
from model_pipeline import bundle
from model_pipeline.bundle import Bundle
from model_pipeline.errors import BundleError
from tests.unit.model_pipeline.conftest import make_bundle, manifest_for

CONTENT = bytes(range(256)) * 5
MANIFEST = manifests.encode(manifest_for(CONTENT))


def content_of(found: Bundle) -> dict[str, bytes]:
    return {file.name: b"".join(file.chunks()) for file in found.files}


def test_round_trip(tmp_path: Path) -> None:
    written = make_bundle(tmp_path, CONTENT)
    assert content_of(written) == {"manifest.json": MANIFEST, "model.onnx": CONTENT}
    assert written.manifest == manifest_for(CONTENT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.0.0.bundle", "model.onnx"]


def test_the_same_release_gives_the_same_bytes(tmp_path: Path) -> None:
    first = make_bundle(tmp_path, CONTENT).path.read_bytes()
    assert make_bundle(tmp_path, CONTENT).path.read_bytes() == first


def test_any_tar_can_read_it(tmp_path: Path) -> None:
    with tarfile.open(make_bundle(tmp_path, CONTENT).path) as archive:
        assert archive.getnames() == ["manifest.json", "model.onnx"]
        extracted = archive.extractfile("model.onnx")
        assert extracted is not None
        assert extracted.read() == CONTENT


def test_one_made_by_another_tar_is_read(tmp_path: Path) -> None:
    path = tmp_path / "other.bundle"
    path.write_bytes(archive_of([("manifest.json", MANIFEST), ("model.onnx", CONTENT)]))
    assert content_of(bundle.read(path))["model.onnx"] == CONTENT


@pytest.mark.parametrize("content", [CONTENT + b"!", CONTENT[:-1], CONTENT[::-1]])
def test_a_file_that_is_not_the_manifests_is_not_packed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    out = tmp_path / "x.bundle"
    out.write_text("an earlier one")
    with pytest.raises(BundleError):
        bundle.write(out, manifest_for(CONTENT), {"model.onnx": tmp_path / "model.onnx"})
    assert out.read_text() == "an earlier one"
    assert len(list(tmp_path.iterdir())) == 2


def archive_of(
    members: list[tuple[str, bytes]], change: Callable[[tarfile.TarInfo], None] | None = None
) -> bytes:
    """Return a ustar archive; ``change`` may spoil the header of the last member."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for at, (name, content) in enumerate(members):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            if change is not None and at == len(members) - 1:
                change(member)
            archive.addfile(member, io.BytesIO(content))
    return target.getvalue()


def typed(kind: bytes, target: str = "") -> Callable[[tarfile.TarInfo], None]:
    def change(member: tarfile.TarInfo) -> None:
        member.type, member.linkname = kind, target
        if kind not in (tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.REGTYPE):
            member.size = 0

    return change


GOOD = ("manifest.json", MANIFEST)
MODEL = ("model.onnx", CONTENT)

HOSTILE = {
    "empty": b"",
    "not a tar": b"PK\3\4" + bytes(2000),
    "only zeros": bytes(10240),
    "no variant": archive_of([GOOD]),
    "manifest missing": archive_of([MODEL]),
    "manifest last": archive_of([MODEL, GOOD]),
    "extra file": archive_of([GOOD, MODEL, ("more.txt", b"more")]),
    "file twice": archive_of([GOOD, MODEL, MODEL]),
    "manifest twice": archive_of([GOOD, GOOD, MODEL]),
    "other name": archive_of([GOOD, ("other.onnx", CONTENT)]),
    "absolute name": archive_of([GOOD, ("/etc/passwd", CONTENT)]),
    "parent name": archive_of([GOOD, ("../model.onnx", CONTENT)]),
    "folder name": archive_of([GOOD, ("folder/model.onnx", CONTENT)]),
    "dotted name": archive_of([GOOD, ("./model.onnx", CONTENT)]),
    "long name": archive_of([GOOD, ("d" * 100 + "/" + "x" * 90, CONTENT)]),
    "symlink": archive_of([GOOD, MODEL], typed(tarfile.SYMTYPE, "/etc/passwd")),
    "hard link": archive_of([GOOD, MODEL], typed(tarfile.LNKTYPE, "manifest.json")),
    "directory": archive_of([GOOD, MODEL], typed(tarfile.DIRTYPE)),
    "device": archive_of([GOOD, MODEL], typed(tarfile.CHRTYPE)),
    "pipe": archive_of([GOOD, MODEL], typed(tarfile.FIFOTYPE)),
    "sparse": archive_of([GOOD, MODEL], typed(tarfile.GNUTYPE_SPARSE)),
    "pax header": archive_of([GOOD, MODEL], typed(tarfile.XHDTYPE)),
    "unknown type": archive_of([GOOD, MODEL], typed(b"Z")),
    "symlink as manifest": archive_of([GOOD], typed(tarfile.SYMTYPE, "/etc/passwd")),
    "wrong content": archive_of([GOOD, ("model.onnx", CONTENT[::-1])]),
    "shorter": archive_of([GOOD, ("model.onnx", CONTENT[:-1])]),
    "longer": archive_of([GOOD, ("model.onnx", CONTENT + b"!")]),
    "broken manifest": archive_of([("manifest.json", MANIFEST[:-2]), MODEL]),
    "manifest of nothing": archive_of([("manifest.json", b"{}"), MODEL]),
    "behind the end": archive_of([GOOD, MODEL]) + b"!",
    "endless zeros": archive_of([GOOD, MODEL]) + bytes(2 * 1024 * 1024),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_bundle(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.bundle"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(BundleError, match=r"x\.bundle"):
        bundle.read(path)


def sized(size: int) -> Callable[[tarfile.TarInfo], None]:
    def change(member: tarfile.TarInfo) -> None:
        member.size = size

    return change


@pytest.mark.parametrize("size", [2**33 - 1, 9 * 1024 * 1024])
def test_a_claimed_size_is_refused_before_it_is_read(tmp_path: Path, size: int) -> None:
    member = tarfile.TarInfo("manifest.json")
    member.size = size
    path = tmp_path / "x.bundle"
    path.write_bytes(member.tobuf(tarfile.USTAR_FORMAT))
    os.truncate(path, size)
    with pytest.raises(BundleError, match="claims"):
        bundle.read(path)


def test_a_huge_or_negative_number_in_gnu_form(tmp_path: Path) -> None:
    for size in (2**62, -1):
        member = tarfile.TarInfo("manifest.json")
        member.size = size
        path = tmp_path / "x.bundle"
        path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
        with pytest.raises(BundleError, match="claims"):
            bundle.read(path)


@pytest.mark.parametrize("name", ["missing.bundle", "."])
def test_what_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="cannot read"):
        bundle.read(tmp_path / name)


WHOLE = archive_of([GOOD, MODEL])


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "x.bundle"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_bundle(tmp_path_factory.mktemp("own"), CONTENT).path.read_bytes()


def assert_refused_or_identical(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        found = bundle.read(path)
    except BundleError:
        return
    assert content_of(found) == {"manifest.json": MANIFEST, "model.onnx": CONTENT}


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_byte(own: bytes, scratch: Path, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(own) - 1))
    flipped = own[at] ^ data.draw(st.integers(1, 255))
    assert_refused_or_identical(scratch, own[:at] + bytes([flipped]) + own[at + 1 :])


@settings(max_examples=200)
@given(data=st.data())
def test_a_bundle_cut_short(own: bytes, scratch: Path, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(own) - 1))
    scratch.write_bytes(own[:length])
    with pytest.raises(BundleError):
        bundle.read(scratch)


@settings(max_examples=200)
@given(data=st.data())
def test_bytes_put_in_or_left_out(own: bytes, scratch: Path, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(own)))
    gone = data.draw(st.integers(0, 600))
    put = data.draw(st.binary(max_size=600))
    assert_refused_or_identical(scratch, own[:at] + put + own[at + gone :])
