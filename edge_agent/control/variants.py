"""Which of a release's variants can run on this device, and how they are told apart. Pure.

What a publisher lists for a variant decides where it may run; what the runtime says about its
backends decides where it can. Both are needed, and whatever falls out gets its reason.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from edge_agent.runtime_api import ActiveRelease, Placement, RuntimeStatus
from fleet_protocol.manifest import Format, Manifest, Variant

MAX_TEXT = 600
_FORMATS_OF_BACKENDS = {"onnxruntime": Format.ONNX, "litert": Format.TFLITE}
_CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Runnable:
    """A variant on one accelerator of this device."""

    variant: Variant
    placement: Placement

    @property
    def label(self) -> str:
        """For a person: ``int8 on cpu``."""
        return f"{self.variant.name} on {self.placement.accelerator}"


@dataclass(frozen=True, slots=True)
class Fitting:
    """What of a release can run here, in the publisher's order, and why the rest cannot."""

    runnable: list[Runnable]
    problems: dict[str, str]

    def why_not_the_rest(self) -> str:
        """Return a clause for each place that is left out; empty if there is none."""
        return "; ".join(f"not {label}: {problem}" for label, problem in self.problems.items())


def placements_of(status: RuntimeStatus | None) -> list[Placement]:
    """Return what the runtime can do; of one that only names its backends, what they always can."""
    if status is None:
        return []
    if status.placements:
        return status.placements
    return [
        Placement(
            backend=name, version=version, format=_FORMATS_OF_BACKENDS[name], accelerator=_CPU
        )
        for name, version in sorted(status.backends.items())
        if name in _FORMATS_OF_BACKENDS
    ]


def accelerators_of(placements: Iterable[Placement]) -> list[str]:
    """Return the accelerators that can be used."""
    return sorted({found.accelerator for found in placements if not found.problem})


def fitting(manifest: Manifest, placements: Sequence[Placement]) -> Fitting:
    """Return what of a release can run here."""
    runnable, problems = list[Runnable](), dict[str, str]()
    for variant in manifest.variants:
        for accelerator in dict.fromkeys(variant.accelerators):
            places = [
                place
                for place in placements
                if (place.format, place.accelerator) == (variant.format, accelerator)
            ]
            usable = [place for place in places if not place.problem]
            if usable:
                runnable.append(Runnable(variant, usable[0]))
            else:
                problems[f"{variant.name} on {accelerator}"] = (
                    places[0].problem
                    if places
                    else f"no backend here runs {variant.format} files on {accelerator}"
                )
    return Fitting(runnable, problems)


def release_of(manifest: Manifest, chosen: Runnable, *, choice: str) -> ActiveRelease:
    """Return what the runtime is told about a variant."""
    return ActiveRelease(
        family=manifest.family,
        version=manifest.version,
        variant=chosen.variant.name,
        format=chosen.variant.format,
        accelerator=chosen.placement.accelerator,
        sha256=chosen.variant.sha256,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        backend=chosen.placement.backend,
        choice=choice[:MAX_TEXT],
        memory_bytes=chosen.variant.memory_bytes,
    )


def choice_key(fingerprint: str, candidates: Sequence[Runnable]) -> str:
    """Return the name of a decision: other hardware, library or file makes another one."""
    places = [
        [
            found.variant.sha256,
            found.placement.backend,
            found.placement.version,
            found.placement.accelerator,
        ]
        for found in candidates
    ]
    return hashlib.sha256(msgspec.json.encode([fingerprint, sorted(places)])).hexdigest()
