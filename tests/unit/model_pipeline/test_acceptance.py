"""Limits and reference of a release: the card's, what is asked for, and what is refused."""

import json
from pathlib import Path

import pytest

from fleet_protocol.manifest import Acceptance, Shadowing
from model_pipeline.acceptance import Limits, acceptance, read_reference
from model_pipeline.errors import PipelineError

CARD = Acceptance(max_p95_latency_ms=9.0, shadow=Shadowing(requests=50, min_agreement=0.9))


@pytest.mark.parametrize(
    ("card", "limits", "expected"),
    [
        (Acceptance(), Limits(), Acceptance()),
        (CARD, Limits(), CARD),
        (
            CARD,
            Limits(max_error_rate=0.0, max_p95_ratio=1.5),
            Acceptance(
                max_error_rate=0.0,
                max_p95_latency_ms=9.0,
                max_p95_ratio=1.5,
                shadow=Shadowing(requests=50, min_agreement=0.9),
            ),
        ),
        (
            CARD,
            Limits(shadow_requests=7, shadow_timeout_s=5, max_error_rate_increase=0.02),
            Acceptance(
                max_error_rate_increase=0.02,
                max_p95_latency_ms=9.0,
                shadow=Shadowing(requests=7, min_agreement=0.9, timeout_s=5),
            ),
        ),
    ],
)
def test_what_is_asked_for_replaces_the_cards(
    card: Acceptance, limits: Limits, expected: Acceptance
) -> None:
    assert acceptance(card, limits) == expected


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (Limits(max_error_rate=1.1), "max_error_rate"),
        (Limits(max_p95_ratio=0.9), "max_p95_ratio"),
        (Limits(max_p95_latency_ms=0.0), "max_p95_latency_ms"),
        (Limits(shadow_min_agreement=0.9), "requests"),
        (Limits(shadow_requests=0), "shadow.requests"),
    ],
)
def test_a_limit_that_makes_no_sense_is_named(limits: Limits, named: str) -> None:
    with pytest.raises(PipelineError, match=named):
        acceptance(Acceptance(), limits)


def test_a_reference_of_counts_becomes_shares(tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    path.write_text(json.dumps({"cat": 30, "dog": 10}))
    assert read_reference(path) == {"cat": 0.75, "dog": 0.25}


@pytest.mark.parametrize(
    "content", ["", "[1]", '{"cat": "often"}', "{}", '{"cat": 0}', '{"cat": 2, "dog": -1}']
)
def test_a_reference_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "reference.json"
    path.write_text(content)
    with pytest.raises(PipelineError, match=r"reference\.json"):
        read_reference(path)
