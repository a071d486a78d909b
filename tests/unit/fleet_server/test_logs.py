"""What libraries say is no alarm of ours."""

import io
import logging
from collections.abc import Iterator

import pytest

from fleet_server import logs


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    logs.configure("info")
    yield stream
    root.handlers = handlers
    root.setLevel(level)


def test_a_lost_connection_has_a_reason_and_no_traceback(written: io.StringIO) -> None:
    lost = ConnectionResetError(104, "Connection reset by peer")
    logging.getLogger("gmqtt.mqtt.protocol").warning("[conn lost]", exc_info=lost)
    assert "traceback" not in written.getvalue().lower()
    assert '"reason":"[Errno 104] Connection reset by peer"' in written.getvalue()


def test_a_mistake_keeps_its_traceback(written: io.StringIO) -> None:
    logging.getLogger("gmqtt.client").error("broken", exc_info=KeyError("x"))
    assert "traceback" in written.getvalue()
