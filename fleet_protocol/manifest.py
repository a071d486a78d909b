"""The manifest of a release: what its model takes and gives, its files, its golden answers.

A release is the TUF targets ``models/<family>/<version>/manifest.json`` and one file per variant.
The manifest is itself a signed target, so everything in it is the publisher's word.
"""

import base64
import binascii
import math
from enum import StrEnum
from typing import Annotated, Literal

import msgspec

from fleet_protocol import bytes_tensor
from fleet_protocol.errors import ProtocolError
from fleet_protocol.names import Family, FileName, Sha256, Version
from fleet_protocol.unreadable import problem

MANIFEST_FILE = "manifest.json"
MAX_MANIFEST_BYTES = 8 * 1024 * 1024
MAX_VARIANT_BYTES = 2 * 1024**3
_SHARES_OFF_BY = 0.01
"""Rounded shares need not add up to exactly one."""

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Dimension = Annotated[int, msgspec.Meta(ge=-1, le=2**31 - 1)]
Shape = Annotated[list[Dimension], msgspec.Meta(max_length=8)]


class Datatype(StrEnum):
    """Tensor datatypes of the Open Inference Protocol V2.

    All but BYTES, whose elements are byte strings (`fleet_protocol.bytes_tensor`), have a fixed
    size.
    """

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"


ITEM_BYTES: dict[Datatype, int] = {
    Datatype.BOOL: 1,
    Datatype.UINT8: 1,
    Datatype.INT8: 1,
    Datatype.UINT16: 2,
    Datatype.INT16: 2,
    Datatype.FP16: 2,
    Datatype.UINT32: 4,
    Datatype.INT32: 4,
    Datatype.FP32: 4,
    Datatype.UINT64: 8,
    Datatype.INT64: 8,
    Datatype.FP64: 8,
}
"""Size of one element; BYTES has none."""


class Format(StrEnum):
    """How a variant's file is stored, which decides the backend that loads it."""

    ONNX = "onnx"
    TFLITE = "tflite"


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input or output. A dimension of -1 is free; the first one is then the batch."""

    name: Text
    datatype: Datatype
    shape: Shape
    preprocessing: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    """For a person: what the application does before it sends the tensor."""
    labels: Annotated[list[Text], msgspec.Meta(max_length=1024)] = []
    """For a classification output: the class names in the order of the last dimension."""


class Accuracy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A measured figure with the number of samples behind it."""

    metric: Text
    value: Annotated[float, msgspec.Meta(ge=0, le=1)]
    sample_count: Annotated[int, msgspec.Meta(ge=1)]


class GoldenTensor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A concrete tensor: little-endian, row-major bytes in base64.

    A BYTES tensor has each element behind its length, as `fleet_protocol.bytes_tensor` says.
    """

    name: Text
    datatype: Datatype
    shape: Annotated[list[Annotated[int, msgspec.Meta(ge=0)]], msgspec.Meta(max_length=8)]
    data_base64: str

    def data(self) -> bytes:
        """Return the tensor's bytes.

        Raises:
            ProtocolError: not base64, or not as long as datatype and shape say.
        """
        try:
            raw = base64.b64decode(self.data_base64, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ProtocolError(f"golden tensor {self.name!r} is not base64: {error}") from error
        if self.datatype is Datatype.BYTES:
            self._check_elements(raw)
            return raw
        expected = math.prod(self.shape) * ITEM_BYTES[self.datatype]
        if len(raw) != expected:
            raise ProtocolError(
                f"golden tensor {self.name!r} has {len(raw)} bytes where {self.datatype} "
                f"{self.shape} takes {expected}"
            )
        return raw

    def _check_elements(self, raw: bytes) -> None:
        try:
            bytes_tensor.unpack(raw, math.prod(self.shape))
        except ProtocolError as error:
            raise ProtocolError(f"golden tensor {self.name!r}: {error}") from error


class GoldenVector(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Inputs and the outputs that the publisher measured for them."""

    inputs: Annotated[list[GoldenTensor], msgspec.Meta(min_length=1)]
    outputs: Annotated[list[GoldenTensor], msgspec.Meta(min_length=1)]


class Tolerance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far an answer on other hardware may lie from the golden one."""

    max_abs_error: Annotated[float, msgspec.Meta(ge=0)]
    """Bound on the absolute difference of every output element."""
    top1_agreement: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    """For outputs with labels: share of vectors whose largest element must be the same."""


class Golden(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The golden vectors of one variant."""

    vectors: Annotated[list[GoldenVector], msgspec.Meta(min_length=1, max_length=256)]
    tolerance: Tolerance


class Variant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file that can serve the release on some hardware."""

    name: Text
    file: FileName
    format: Format
    precision: Literal["fp32", "fp16", "int8"]
    accelerators: Annotated[list[Text], msgspec.Meta(min_length=1)]
    """Where it runs: ``cpu``, ``edgetpu``, ``cuda`` ..."""
    length: Annotated[int, msgspec.Meta(ge=1, le=MAX_VARIANT_BYTES)]
    sha256: Sha256
    accuracy: Accuracy
    memory_bytes: Annotated[int, msgspec.Meta(ge=0)]
    """Resident memory that loading it takes, as the publisher measured it."""
    golden: Golden


class Shadowing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Live requests that the candidate answers too, before the switch and unseen by callers.

    An answer agrees if every output does: one with labels names the same class for each item, any
    other differs nowhere by more than ``max_abs_error``.
    """

    requests: Annotated[int, msgspec.Meta(ge=1, le=100_000)]
    """How many answers are compared."""
    min_agreement: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.95
    """Share of the answers that must agree with those of the release that serves."""
    max_abs_error: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=30 * 86400)] = 3600.0
    """A device with fewer requests goes on after this time, unless those that came clearly
    disagree; its report says how many there were."""


class Acceptance(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """The limits that a device holds the release to before it commits.

    Rates and latencies during probation are judged as `edge_agent.control.probation` says: only
    what chance does not explain rolls a release back.
    """

    max_error_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.01
    """Share of calls that may fail in the backend during probation."""
    max_error_rate_increase: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    """By how much that share may exceed the previous release's; None does not compare."""
    max_p95_latency_ms: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """p95 of the golden calls in the trial; None leaves latency to the operator."""
    max_p95_ratio: Annotated[float, msgspec.Meta(ge=1, le=1000)] | None = None
    """p95 of live calls during probation, as a multiple of the previous release's on the same
    device; None does not compare."""
    shadow: Shadowing | None = None
    """None switches after the golden vectors."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything about a release but the bytes of its variants."""

    schema: Literal[1] = 1
    family: Family
    version: Version
    security_counter: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 0
    """Raised by the publisher when older releases must never come back."""
    description: Annotated[str, msgspec.Meta(max_length=2000)] = ""
    inputs: Annotated[list[TensorSpec], msgspec.Meta(min_length=1, max_length=64)]
    outputs: Annotated[list[TensorSpec], msgspec.Meta(min_length=1, max_length=64)]
    variants: Annotated[list[Variant], msgspec.Meta(min_length=1, max_length=16)]
    acceptance: Acceptance = Acceptance()
    reference: dict[Text, Annotated[float, msgspec.Meta(ge=0, le=1)]] = {}
    """Reference statistics for drift: share of each label on the publisher's evaluation set."""


def decode(payload: bytes) -> Manifest:
    """Read a manifest and check what its types alone cannot say.

    Raises:
        ProtocolError: too large, not JSON, a field missing, unknown or out of range, two variants
            of one name or file, or golden tensors that do not fit the inputs and outputs.
    """
    if len(payload) > MAX_MANIFEST_BYTES:
        raise ProtocolError(
            f"the manifest has {len(payload)} bytes, at most {MAX_MANIFEST_BYTES} are read"
        )
    try:
        manifest = msgspec.json.decode(payload, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a manifest: {problem(error, Manifest)}") from error
    _check_unique([variant.name for variant in manifest.variants], "variants share the name")
    _check_unique([variant.file for variant in manifest.variants], "variants share the file")
    _check_unique([spec.name for spec in manifest.inputs], "inputs share the name")
    _check_unique([spec.name for spec in manifest.outputs], "outputs share the name")
    _check_reference(manifest)
    for variant in manifest.variants:
        if variant.file == MANIFEST_FILE:
            raise ProtocolError(f"variant {variant.name!r} claims the file {MANIFEST_FILE}")
        for vector in variant.golden.vectors:
            _check_tensors(variant.name, vector.inputs, manifest.inputs)
            _check_tensors(variant.name, vector.outputs, manifest.outputs)
    return manifest


def encode(manifest: Manifest) -> bytes:
    """Return the manifest as JSON, indented for people; `decode` accepts it."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1)


def shape_fits(shape: list[int], spec: TensorSpec) -> bool:
    """Say whether a concrete shape is one that the spec allows (-1 takes any size)."""
    return len(shape) == len(spec.shape) and all(
        wanted in (-1, size) for size, wanted in zip(shape, spec.shape, strict=True)
    )


def _check_unique(values: list[str], problem: str) -> None:
    for value in values:
        if values.count(value) > 1:
            raise ProtocolError(f"two {problem} {value!r}")


def _check_reference(manifest: Manifest) -> None:
    if not manifest.reference:
        return
    labels = {label for spec in manifest.outputs for label in spec.labels}
    unknown = sorted(manifest.reference.keys() - labels)
    if unknown:
        raise ProtocolError(f"the reference names {unknown[0]!r}, which is no label of an output")
    total = sum(manifest.reference.values())
    if abs(total - 1) > _SHARES_OFF_BY:
        raise ProtocolError(f"the shares of the reference add up to {total:g}, not to 1")


def _check_tensors(variant: str, tensors: list[GoldenTensor], specs: list[TensorSpec]) -> None:
    if [tensor.name for tensor in tensors] != [spec.name for spec in specs]:
        raise ProtocolError(
            f"a golden vector of variant {variant!r} has tensors "
            f"{[tensor.name for tensor in tensors]}, the manifest {[spec.name for spec in specs]}"
        )
    for tensor, spec in zip(tensors, specs, strict=True):
        if tensor.datatype != spec.datatype or not shape_fits(tensor.shape, spec):
            raise ProtocolError(
                f"golden tensor {tensor.name!r} of variant {variant!r} is {tensor.datatype} "
                f"{tensor.shape}, the manifest says {spec.datatype} {spec.shape}"
            )
        tensor.data()
