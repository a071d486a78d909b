"""Verdicts on probation, as a table."""

import pytest

from edge_agent.control.probation import Health, Verdict, verdict


@pytest.mark.parametrize(
    ("requests", "errors", "elapsed_s", "expected"),
    [
        (0, 0, 0.0, Verdict.GO_ON),
        (0, 0, 10.0, Verdict.COMMIT),
        (1000, 0, 9.9, Verdict.GO_ON),
        (1000, 0, 10.0, Verdict.COMMIT),
        (1, 1, 1.0, Verdict.GO_ON),
        (2, 2, 1.0, Verdict.ROLL_BACK),
        (1000, 10, 1.0, Verdict.GO_ON),
        (1000, 11, 1.0, Verdict.ROLL_BACK),
        (1000, 10, 10.0, Verdict.COMMIT),
        (1000, 11, 10.0, Verdict.ROLL_BACK),
        (1, 1, 10.0, Verdict.ROLL_BACK),
    ],
)
def test_one_percent_may_fail(
    requests: int, errors: int, elapsed_s: float, expected: Verdict
) -> None:
    found = verdict(
        Health(requests, errors), max_error_rate=0.01, elapsed_s=elapsed_s, probation_s=10.0
    )
    assert found is expected


@pytest.mark.parametrize(("errors", "expected"), [(0, Verdict.GO_ON), (1, Verdict.ROLL_BACK)])
def test_where_nothing_may_fail_the_first_error_decides(errors: int, expected: Verdict) -> None:
    found = verdict(Health(5, errors), max_error_rate=0.0, elapsed_s=1.0, probation_s=10.0)
    assert found is expected
