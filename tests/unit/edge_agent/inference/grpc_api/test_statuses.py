"""What callers are told about errors."""

import logging

import pytest
from grpc import StatusCode

from edge_agent.inference import errors
from edge_agent.inference.grpc_api.statuses import status_of

_C = StatusCode


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.RequestError("why"), _C.INVALID_ARGUMENT),
        (errors.UnknownModelError("why"), _C.NOT_FOUND),
        (errors.UnavailableError("why"), _C.UNAVAILABLE),
        (errors.AsleepError("why"), _C.UNAVAILABLE),
        (errors.RefusedError("why"), _C.RESOURCE_EXHAUSTED),
        (errors.DeadlineError("why"), _C.DEADLINE_EXCEEDED),
        (errors.ConflictError("why"), _C.FAILED_PRECONDITION),
        (errors.LoadError("why"), _C.FAILED_PRECONDITION),
        (errors.ForbiddenError("why"), _C.PERMISSION_DENIED),
        (errors.NotOfferedError("why"), _C.UNIMPLEMENTED),
    ],
)
def test_our_errors_have_a_code_and_keep_their_message(
    error: errors.InferenceError, code: StatusCode, caplog: pytest.LogCaptureFixture
) -> None:
    assert status_of(error) == (code, "why")
    assert not caplog.records


def test_a_failing_model_is_told_of_in_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    status = status_of(errors.BackendError("secret path"))
    assert status.code is _C.INTERNAL
    assert "secret" not in status.message
    assert [record.message for record in caplog.records] == ["inference_failed"]


def test_the_unforeseen_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        status = status_of(KeyError("secret"))
    assert status.code is _C.INTERNAL
    assert "secret" not in status.message
    assert caplog.records[0].exc_info is not None


def test_messages_fit_into_trailers() -> None:
    assert len(status_of(errors.RequestError("x" * 100_000)).message) <= 2000
