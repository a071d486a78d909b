"""A folder with a built model: its card, its golden vectors, its files.

`card.json` may say more than is read here (training, licences, measurements for people); what is
read must be there. `models/fashion_mnist/` is the reference.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec

from fleet_protocol.manifest import Acceptance, Format, Golden, TensorSpec
from fleet_protocol.names import Family, FileName, Sha256
from model_pipeline.errors import PipelineError

_CARD = "card.json"
_GOLDEN = "golden.json"
_MAX_CARD_BYTES = 8 * 1024 * 1024


class MeasuredAccuracy(msgspec.Struct, frozen=True, kw_only=True):
    """Top-1 hits on a set of labelled samples."""

    correct: Annotated[int, msgspec.Meta(ge=0)]
    total: Annotated[int, msgspec.Meta(ge=1)]


class CardAccuracy(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy by evaluation set; the test set is what a release quotes."""

    test: MeasuredAccuracy


class CardVariant(msgspec.Struct, frozen=True, kw_only=True):
    """One built file of the model."""

    file: FileName
    format: Format
    precision: Literal["fp32", "fp16", "int8"]
    accuracy: CardAccuracy
    accelerators: tuple[str, ...] = ("cpu",)


class BuiltFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a file was when it was measured."""

    sha256: Sha256


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a model's card that becomes a manifest.

    Attributes:
        acceptance: limits that every release of the model carries unless others are asked for.
        reference: how often each label came up on the evaluation set, as counts or shares.
    """

    family: Family
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    variants: dict[str, CardVariant]
    files: dict[str, BuiltFile] = {}
    task: str = ""
    acceptance: Acceptance = Acceptance()
    reference: dict[str, float] = {}


class ModelFolder:
    """A model's folder, read and consistent in itself."""

    def __init__(self, path: Path) -> None:
        """Read card and golden vectors.

        Raises:
            PipelineError: one of them is missing or malformed.
        """
        self.path = path
        self.card: Card = _decoded(path / _CARD, Card)
        self._golden: dict[str, Golden] = _decoded(path / _GOLDEN, dict[str, Golden])

    def variant(self, name: str) -> CardVariant:
        """Return what the card says about a variant.

        Raises:
            PipelineError: the card has no such variant.
        """
        try:
            return self.card.variants[name]
        except KeyError:
            known = ", ".join(sorted(self.card.variants))
            raise PipelineError(
                f"{self.path / _CARD} has no variant {name!r}: choose from {known}"
            ) from None

    def golden(self, name: str) -> Golden:
        """Return the golden vectors of a variant.

        Raises:
            PipelineError: there are none.
        """
        try:
            return self._golden[name]
        except KeyError:
            raise PipelineError(
                f"{self.path / _GOLDEN} has no vectors for the variant {name!r}: a release without "
                "golden answers could not be checked on a device"
            ) from None

    def check_unchanged(self, file: Path) -> None:
        """Make sure that a file is the one that the card's figures were measured on.

        Raises:
            PipelineError: it is another one.
        """
        recorded = self.card.files.get(file.name)
        if recorded is not None and sha256_of(file) != recorded.sha256:
            raise PipelineError(
                f"{file} is not the file that {self.path / _CARD} describes (its SHA-256 differs): "
                "build the model again, or give another file with --model-file"
            )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises:
        PipelineError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PipelineError(f"cannot read {path}: {error.strerror}") from error


Decoded = TypeVar("Decoded")


def _decoded(path: Path, kind: type[Decoded]) -> Decoded:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_CARD_BYTES + 1)
    except OSError as error:
        raise PipelineError(
            f"cannot read {path}: {error.strerror}; a model's folder holds {_CARD}, {_GOLDEN} and "
            "the built files"
        ) from error
    if len(content) > _MAX_CARD_BYTES:
        raise PipelineError(f"{path} has more than {_MAX_CARD_BYTES} bytes")
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path}: {error}") from error
