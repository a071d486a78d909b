"""From a model's folder to a bundle: figures of the card, golden answers, measured memory."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.inference.backends import catalog
from edge_agent.inference.errors import LoadError
from fleet_protocol import manifest as manifests
from fleet_protocol import names
from fleet_protocol.manifest import Accuracy, Manifest, Variant
from model_pipeline import bundle, golden_check, memory_probe
from model_pipeline.acceptance import Limits, acceptance, shares
from model_pipeline.bundle import Bundle
from model_pipeline.errors import PipelineError
from model_pipeline.model_folder import ModelFolder, sha256_of

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """What is asked for.

    Attributes:
        variants: names from the card, in the order in which the manifest lists them.
        model_file: its content is packed in the place of the card's file; for a single variant.
        golden_check: False packs a file without asking whether it is the model it claims to be.
        limits: in the place of the card's.
        reference: shares of the labels, in the place of the card's; empty leaves those.
    """

    version: str
    variants: Sequence[str]
    security_counter: int = 0
    description: str = ""
    model_file: Path | None = None
    golden_check: bool = True
    limits: Limits = field(default_factory=Limits)
    reference: Mapping[str, float] = field(default_factory=dict)


def pack(folder: ModelFolder, packing: Packing, out: Path) -> Bundle:
    """Write the bundle of a release.

    Raises:
        PipelineError: the card lacks something, a file is not the one it describes, the golden
            answers do not come out, or the bundle cannot be written.
        ProtocolError: the version is malformed.
    """
    chosen = list(dict.fromkeys(packing.variants))
    if not chosen:
        raise PipelineError("name at least one variant with --variant")
    if packing.model_file is not None and len(chosen) != 1:
        raise PipelineError("--model-file stands for the file of one variant: give --variant once")
    files = {name: _file(folder, name, packing) for name in chosen}
    draft = _manifest(folder, packing, {name: (path, 0) for name, path in files.items()})
    if packing.golden_check:
        _check_golden(draft, files)
    measured = {
        variant.name: (files[variant.name], _memory(draft, variant, files[variant.name]))
        for variant in draft.variants
    }
    manifest = _manifest(folder, packing, measured)
    packed = bundle.write(
        out, manifest, {variant.file: files[variant.name] for variant in manifest.variants}
    )
    _LOG.info("release_packed", extra={"family": manifest.family, "version": manifest.version})
    return packed


def _file(folder: ModelFolder, variant: str, packing: Packing) -> Path:
    if packing.model_file is not None:
        return packing.model_file
    path = folder.path / folder.variant(variant).file
    folder.check_unchanged(path)
    return path


def _check_golden(manifest: Manifest, files: dict[str, Path]) -> None:
    backends = catalog.installed(threads=1)
    for variant in manifest.variants:
        try:
            backend = backends.backend_for(variant.format)
        except LoadError as error:
            raise PipelineError(f"cannot check the variant {variant.name!r}: {error}") from error
        deviation = golden_check.check(backend, files[variant.name], manifest, variant)
        _LOG.info(
            "golden_check_passed",
            extra={"variant": variant.name, "max_abs_error": deviation.max_abs_error},
        )


def _memory(manifest: Manifest, variant: Variant, path: Path) -> int:
    release = golden_check.release_of(manifest, variant)
    return memory_probe.measure(path, release, variant.golden.vectors[0].inputs)


def _manifest(
    folder: ModelFolder, packing: Packing, files: dict[str, tuple[Path, int]]
) -> Manifest:
    """Build the manifest; ``files`` has the file and the resident bytes of each variant."""
    manifest = Manifest(
        family=folder.card.family,
        version=names.version(packing.version),
        security_counter=packing.security_counter,
        description=packing.description or folder.card.task,
        inputs=folder.card.inputs,
        outputs=folder.card.outputs,
        variants=[
            _variant(folder, name, path, memory_bytes)
            for name, (path, memory_bytes) in files.items()
        ],
        acceptance=acceptance(folder.card.acceptance, packing.limits),
        reference=dict(packing.reference) or _reference(folder),
    )
    return manifests.decode(manifests.encode(manifest))


def _reference(folder: ModelFolder) -> dict[str, float]:
    counts = folder.card.reference
    return shares(counts, f"the card in {folder.path}") if counts else {}


def _variant(folder: ModelFolder, name: str, path: Path, memory_bytes: int) -> Variant:
    card = folder.variant(name)
    test = card.accuracy.test
    try:
        length = path.stat().st_size
    except OSError as error:
        raise PipelineError(f"cannot read {path}: {error.strerror}") from error
    return Variant(
        name=name,
        file=card.file,
        format=card.format,
        precision=card.precision,
        accelerators=list(card.accelerators),
        length=length,
        sha256=sha256_of(path),
        accuracy=Accuracy(metric="top1", value=test.correct / test.total, sample_count=test.total),
        memory_bytes=memory_bytes,
        golden=folder.golden(name),
    )
