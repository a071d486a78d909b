"""What is measured: the files of one model, from a bundle, a folder, or this device's own blobs."""

import hashlib
import io
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, TypeVar

import msgspec

from edge_agent import store
from edge_agent.control.active_set import ActiveSetFile
from edge_agent.control.journal import Journal
from edge_agent.control.outbox import Outbox
from edge_agent.errors import AgentError
from edge_agent.runtime_api import ActiveRelease
from edge_agent.state_dir import StateDir
from fleet_protocol import manifest as manifests
from fleet_protocol.errors import ProtocolError
from fleet_protocol.manifest import (
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    Format,
    Golden,
    GoldenTensor,
    Manifest,
    TensorSpec,
)

_CARD_FILE = "card.json"
_GOLDEN_FILE = "golden.json"
_PIECE_BYTES = 1024 * 1024


class SubjectError(AgentError):
    """There is nothing to measure; the message says why."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the model.

    Attributes:
        released_for: accelerators that the publisher lists for it.
        inputs: one golden call; empty where there is none, and numbers are made up.
    """

    variant: str
    precision: str
    format: Format
    path: Path
    released_for: list[str]
    inputs: list[GoldenTensor]


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A model with its files."""

    name: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    entries: list[Entry]


class _CardVariant(msgspec.Struct, frozen=True):
    file: str
    format: Format
    precision: str
    accelerators: tuple[str, ...] = ("cpu",)


class _Card(msgspec.Struct, frozen=True):
    """What is read of a model folder's card."""

    family: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    variants: dict[str, _CardVariant]


@contextmanager
def opened(model: str, state: StateDir) -> Iterator[Subject]:
    """Yield the subject that a name stands for; files of a bundle live as long as the block.

    Args:
        model: path of a bundle or of a model folder, or a family that the device has committed to.
        state: of the device.

    Raises:
        SubjectError: it is none of them, or it is damaged.
        AgentError: the device's state cannot be read.
    """
    path = Path(model)
    if path.is_dir():
        yield _folder(path)
    elif path.is_file():
        with TemporaryDirectory(prefix="skerry-bench-") as unpacked:
            yield _bundle(path, Path(unpacked))
    else:
        yield _family(model, state)


def _folder(path: Path) -> Subject:
    if (path / MANIFEST_FILE).is_file():
        return _released(
            _manifest((path / MANIFEST_FILE).read_bytes(), str(path)),
            {file.name: file for file in path.iterdir()},
        )
    card = _decoded(path / _CARD_FILE, _Card)
    golden = (
        _decoded(path / _GOLDEN_FILE, dict[str, Golden]) if (path / _GOLDEN_FILE).is_file() else {}
    )
    return Subject(
        name=card.family,
        inputs=card.inputs,
        outputs=card.outputs,
        entries=[
            Entry(
                variant=name,
                precision=variant.precision,
                format=variant.format,
                path=path / variant.file,
                released_for=list(variant.accelerators),
                inputs=golden[name].vectors[0].inputs if name in golden else [],
            )
            for name, variant in card.variants.items()
        ],
    )


def _bundle(path: Path, folder: Path) -> Subject:
    try:
        with tarfile.open(path, "r:") as bundle:
            first = bundle.next()
            if first is None or first.name != MANIFEST_FILE or first.size > MAX_MANIFEST_BYTES:
                raise SubjectError(f"{path} is not a bundle: it does not begin with a manifest")
            manifest = _manifest(_content(bundle, first).read(), str(path))
            known = {variant.file: variant for variant in manifest.variants}
            files = {}
            for member in bundle:
                variant = known.get(member.name)
                if variant is None or not member.isreg() or member.size != variant.length:
                    continue
                target = folder / variant.sha256
                if _copied(_content(bundle, member), target) != variant.sha256:
                    raise SubjectError(f"{path} is damaged: {member.name} is not what it was")
                files[member.name] = target
    except (OSError, tarfile.TarError) as error:
        raise SubjectError(
            f"{path} is not a bundle that can be read: {error}; name a bundle, a model folder "
            "(with its card.json) or a family of this device"
        ) from error
    return _released(manifest, files)


def _family(family: str, state: StateDir) -> Subject:
    active = ActiveSetFile(state.active_set).read().get(family)
    if active is None:
        raise SubjectError(
            f"{family!r} is neither a bundle, nor a model folder, nor a family that the device at "
            f"{state.root} has committed to"
        )
    manifest = _committed_manifest(family, state)
    if manifest is None:
        return _bare(active, state)
    files = {
        variant.file: state.blob(variant.sha256)
        for variant in manifest.variants
        if state.blob(variant.sha256).is_file()
    }
    return _released(manifest, files)


def _committed_manifest(family: str, state: StateDir) -> Manifest | None:
    if not state.database.exists():
        return None
    with closing(store.read_only_database(state.database)) as connection:
        committed = Journal(outbox=Outbox(max_messages=0)).committed(connection).get(family)
    if committed is None:
        return None
    try:
        return _manifest(state.blob(committed.manifest.sha256).read_bytes(), family)
    except OSError:
        return None


def _bare(active: ActiveRelease, state: StateDir) -> Subject:
    entry = Entry(
        variant=active.variant,
        precision="",
        format=active.format,
        path=state.blob(active.sha256),
        released_for=[active.accelerator],
        inputs=[],
    )
    return Subject(
        name=f"{active.family} {active.version}",
        inputs=active.inputs,
        outputs=active.outputs,
        entries=[entry],
    )


def _released(manifest: Manifest, files: dict[str, Path]) -> Subject:
    entries = [
        Entry(
            variant=variant.name,
            precision=variant.precision,
            format=variant.format,
            path=files[variant.file],
            released_for=variant.accelerators,
            inputs=variant.golden.vectors[0].inputs,
        )
        for variant in manifest.variants
        if variant.file in files
    ]
    return Subject(
        name=f"{manifest.family} {manifest.version}",
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        entries=entries,
    )


def _manifest(content: bytes, where: str) -> Manifest:
    try:
        return manifests.decode(content)
    except ProtocolError as error:
        raise SubjectError(f"{where}: {error}") from error


def _content(bundle: tarfile.TarFile, member: tarfile.TarInfo) -> BinaryIO | io.BufferedReader:
    content = bundle.extractfile(member)
    if content is None:
        raise SubjectError(f"{member.name} is not a plain file")
    return content  # type: ignore[return-value]  # typeshed calls it IO[bytes]


def _copied(source: BinaryIO | io.BufferedReader, target: Path) -> str:
    digest = hashlib.sha256()
    with target.open("wb") as file:
        while piece := source.read(_PIECE_BYTES):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


_Read = TypeVar("_Read")


def _decoded(path: Path, kind: type[_Read]) -> _Read:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SubjectError(
            f"{path.parent} is not a model folder: {path.name} cannot be used: {error}"
        ) from error
