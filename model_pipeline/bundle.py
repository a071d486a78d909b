"""The bundle file: one release on its way from the one who packs it to the one who signs it.

It is a plain ustar archive (POSIX.1-1988): ``manifest.json`` first, then the variants' files in the
manifest's order, regular files with flat names, two zero blocks at the end. Nothing else is
accepted: no links, directories, sparse files, extended headers, no name twice, no byte more or
fewer than the manifest says. Nothing is ever extracted by name, so a hostile bundle has no path to
write to; what is read is bounded before it is read.
"""

import hashlib
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fleet_protocol import manifest as manifests
from fleet_protocol import names
from fleet_protocol.errors import ProtocolError
from fleet_protocol.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, Manifest
from model_pipeline.errors import BundleError

CHUNK_BYTES = 1024 * 1024
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_MAX_PADDING = 1024 * 1024
"""Zeros after the end that other writers of tar leave; GNU tar pads to 10 KiB."""

_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.DIRTYPE: "a directory",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
    tarfile.XHDTYPE: "an extended (pax) header",
    tarfile.XGLTYPE: "an extended (pax) header",
    tarfile.GNUTYPE_LONGNAME: "a long name",
    tarfile.GNUTYPE_LONGLINK: "a long name",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BundledFile:
    """Where one file of a release lies in a bundle, and what it is."""

    bundle: Path
    name: str
    offset: int
    length: int
    sha256: str

    def chunks(self) -> Iterator[bytes]:
        """Yield the file's content.

        Raises:
            BundleError: the bundle cannot be read, or became shorter since it was checked.
        """
        try:
            with self.bundle.open("rb") as file:
                file.seek(self.offset)
                yield from _chunks(file, self.length, self.bundle)
        except OSError as error:
            raise _unreadable(self.bundle, error) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle that has been read and found whole: manifest first, then the variants."""

    path: Path
    manifest: Manifest
    files: tuple[BundledFile, ...]


def read(path: Path) -> Bundle:
    """Check a whole bundle, including the hash of each file.

    Raises:
        BundleError: it cannot be read, is cut short, or is not exactly what its manifest says.
    """
    try:
        with path.open("rb") as file:
            return _read(path, file)
    except OSError as error:
        raise _unreadable(path, error) from error
    except ProtocolError as error:
        raise BundleError(f"{path} is not a bundle: {error}") from error


def write(path: Path, manifest: Manifest, files: Mapping[str, Path]) -> Bundle:
    """Write a bundle and read it back; the same release always gives the same bytes.

    Args:
        path: replaced as a whole, only once the new bundle has been checked.
        manifest: names the variants with their lengths and hashes.
        files: for each of its file names where that file lies.

    Raises:
        BundleError: a file is not what the manifest says, or something cannot be read or written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        try:
            with partial.open("xb") as file:
                _write(file, manifest, files)
                file.flush()
                os.fsync(file.fileno())
            read(partial)
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise BundleError(f"cannot write the bundle {path}: {error}") from error
    return read(path)


def _write(file: BinaryIO, manifest: Manifest, files: Mapping[str, Path]) -> None:
    content = manifests.encode(manifest)
    file.write(_header(MANIFEST_FILE, len(content), note=_digest_note(content)))
    file.write(content + _padding(len(content)))
    for variant in manifest.variants:
        file.write(_header(variant.file, variant.length))
        with files[variant.file].open("rb") as source:
            file.writelines(_chunks(source, variant.length, files[variant.file]))
            if source.read(1):
                raise BundleError(
                    f"{files[variant.file]} has more than the {variant.length} bytes that the "
                    "manifest says: did it change while it was packed?"
                )
        file.write(_padding(variant.length))
    file.write(_END)


def _header(name: str, length: int, *, note: str = "") -> bytes:
    member = tarfile.TarInfo(name)
    member.size = length
    member.linkname = note
    return member.tobuf(tarfile.USTAR_FORMAT)


def _digest_note(manifest: bytes) -> str:
    """Return what stands in the manifest's header where a link would have its target.

    The manifest vouches for the variants, and nothing else in the archive vouches for the manifest.
    Every tar ignores this field of a plain file; one that another tar wrote leaves it empty.
    """
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def _read(path: Path, file: BinaryIO) -> Bundle:
    first, content = _manifest(path, file)
    manifest = manifests.decode(content)
    files = [first]
    for variant in manifest.variants:
        found = _file(path, file, limit=variant.length)
        if (found.name, found.length, found.sha256) != (
            variant.file,
            variant.length,
            variant.sha256,
        ):
            raise BundleError(
                f"{path}: after {files[-1].name} comes {found.name} ({found.length} bytes, sha256 "
                f"{found.sha256}) where the manifest says {variant.file} ({variant.length} bytes, "
                f"sha256 {variant.sha256}); pack the release again"
            )
        files.append(found)
    _check_end(path, file)
    return Bundle(path=path, manifest=manifest, files=tuple(files))


def _manifest(path: Path, file: BinaryIO) -> tuple[BundledFile, bytes]:
    member = _member(path, file, limit=MAX_MANIFEST_BYTES)
    if member.name != MANIFEST_FILE:
        raise BundleError(
            f"{path} is not a bundle: it begins with {member.name}, not {MANIFEST_FILE}"
        )
    offset = file.tell()
    content = b"".join(_chunks(file, member.size, path))
    _skip_padding(path, file, member.size)
    if member.linkname not in ("", _digest_note(content)):
        raise BundleError(f"{path} is damaged: its manifest has changed; copy or pack it again")
    found = BundledFile(
        bundle=path,
        name=member.name,
        offset=offset,
        length=member.size,
        sha256=hashlib.sha256(content).hexdigest(),
    )
    return found, content


def _file(path: Path, file: BinaryIO, *, limit: int) -> BundledFile:
    member = _member(path, file, limit=limit)
    offset = file.tell()
    digest = hashlib.sha256()
    for chunk in _chunks(file, member.size, path):
        digest.update(chunk)
    _skip_padding(path, file, member.size)
    return BundledFile(
        bundle=path,
        name=member.name,
        offset=offset,
        length=member.size,
        sha256=digest.hexdigest(),
    )


def _member(path: Path, file: BinaryIO, *, limit: int) -> tarfile.TarInfo:
    """Read the header of a member; its kind, name and size are then harmless."""
    block = file.read(_BLOCK)
    if len(block) < _BLOCK:
        raise _cut_short(path)
    try:
        member = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise BundleError(
            f"{path} is not a bundle, or ends too early: {error} where a file should begin; "
            "`skerry model pack` writes bundles"
        ) from error
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        kind = _KINDS.get(member.type, f"an entry of type {member.type!r}")
        raise BundleError(
            f"{path}: {member.name[:80]!r} is {kind}; a bundle holds plain files only"
        )
    if not 0 <= member.size <= limit:
        raise BundleError(
            f"{path}: {member.name[:80]!r} claims {member.size} bytes, expected are at most {limit}"
        )
    names.file_name(member.name)
    return member


def _chunks(file: BinaryIO, length: int, path: Path) -> Iterator[bytes]:
    while length:
        chunk = file.read(min(length, CHUNK_BYTES))
        if not chunk:
            raise _cut_short(path)
        length -= len(chunk)
        yield chunk


def _padding(length: int) -> bytes:
    return bytes(-length % _BLOCK)


def _skip_padding(path: Path, file: BinaryIO, length: int) -> None:
    if file.read(-length % _BLOCK) != _padding(length):
        raise BundleError(f"{path} is damaged: something other than zeros stands behind a file")


def _check_end(path: Path, file: BinaryIO) -> None:
    rest = file.read(_MAX_PADDING + 1)
    if len(rest) < len(_END):
        raise _cut_short(path)
    if rest.strip(b"\0") or len(rest) > _MAX_PADDING:
        raise BundleError(f"{path} holds more than its manifest names; pack the release again")


def _cut_short(path: Path) -> BundleError:
    return BundleError(f"{path} is cut short: copy or pack it again")


def _unreadable(path: Path, error: OSError) -> BundleError:
    return BundleError(f"cannot read the bundle {path}: {error.strerror or error}")
