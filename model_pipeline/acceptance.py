"""The limits that a release carries, and its reference statistics: the card's, or those asked for.

What the limits mean to a device is said in `fleet_protocol.manifest.Acceptance`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fleet_protocol.manifest import Acceptance
from model_pipeline.errors import PipelineError

_MAX_REFERENCE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits that replace the card's; None leaves one as it is. See `Acceptance`, `Shadowing`."""

    max_error_rate: float | None = None
    max_error_rate_increase: float | None = None
    max_p95_latency_ms: float | None = None
    max_p95_ratio: float | None = None
    shadow_requests: int | None = None
    shadow_min_agreement: float | None = None
    shadow_max_abs_error: float | None = None
    shadow_timeout_s: float | None = None


def acceptance(card: Acceptance, limits: Limits) -> Acceptance:
    """Return the card's limits with those that are asked for in their place.

    Raises:
        PipelineError: a limit is out of range, or says how to shadow without how many requests.
    """
    asked = {
        name: value
        for name in Limits.__dataclass_fields__
        if (value := getattr(limits, name)) is not None
    }
    shadow = {
        name.removeprefix("shadow_"): value
        for name, value in asked.items()
        if name.startswith("shadow_")
    }
    merged: dict[str, object] = msgspec.to_builtins(card)
    merged |= {name: value for name, value in asked.items() if not name.startswith("shadow_")}
    if shadow:
        merged["shadow"] = (msgspec.to_builtins(card.shadow) if card.shadow else {}) | shadow
    try:
        return msgspec.convert(merged, Acceptance)
    except msgspec.ValidationError as error:
        raise PipelineError(f"the limits of the release cannot be used: {error}") from error


def shares(counts: Mapping[str, float], where: str) -> dict[str, float]:
    """Return the share of each label in counts or shares.

    Raises:
        PipelineError: a number is negative, or nothing was counted.
    """
    total = sum(counts.values())
    if total <= 0 or min(counts.values(), default=0) < 0:
        raise PipelineError(
            f"{where}: a reference needs for each label how often it came up, at least one of them "
            "more than never"
        )
    return {label: count / total for label, count in counts.items()}


def read_reference(path: Path) -> dict[str, float]:
    """Return the shares in a JSON object of labels with their counts or shares.

    Raises:
        PipelineError: it cannot be read or is something else.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_REFERENCE_BYTES)
        counts = msgspec.json.decode(content, type=dict[str, float])
    except OSError as error:
        raise PipelineError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PipelineError(
            f'{path} is no JSON object such as {{"cat": 120, "dog": 80}}: {error}'
        ) from error
    return shares(counts, str(path))
