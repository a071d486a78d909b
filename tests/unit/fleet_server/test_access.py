"""The broker's table of who may do what."""

import pytest

from fleet_server.broker import access
from fleet_server.broker.access import Identity

CAM = Identity("cam-1")
INGEST = Identity(None)


@pytest.mark.parametrize(
    ("identity", "topic", "retain", "allowed"),
    [
        (CAM, "skerry/v1/cam-1/telemetry", False, True),
        (CAM, "skerry/v1/cam-1/event", False, True),
        (CAM, "skerry/v1/cam-1/reported", True, True),
        (CAM, "skerry/v1/cam-1/presence", True, True),
        (CAM, "skerry/v1/cam-1/telemetry", True, False),
        (CAM, "skerry/v1/cam-1/event", True, False),
        (CAM, "skerry/v1/cam-1/assignment", False, False),
        (CAM, "skerry/v1/cam-1/assignment", True, False),
        (CAM, "skerry/v1/cam-1/ack", False, False),
        (CAM, "skerry/v1/cam-2/telemetry", False, False),
        (CAM, "skerry/v1/cam-1/unknown", False, False),
        (CAM, "skerry/v1/cam-1/telemetry/more", False, False),
        (CAM, "skerry/v2/cam-1/telemetry", False, False),
        (CAM, "$SYS/broker/uptime", False, False),
        (CAM, "", False, False),
        (INGEST, "skerry/v1/cam-1/assignment", True, True),
        (INGEST, "skerry/v1/cam-1/ack", False, True),
        (INGEST, "skerry/v1/cam-1/ack", True, False),
        (INGEST, "skerry/v1/cam-1/telemetry", False, False),
        (INGEST, "skerry/v1/_ingest/ack", False, False),
    ],
)
def test_publish(identity: Identity, topic: str, retain: bool, allowed: bool) -> None:  # noqa: FBT001 (parametrized)
    assert access.may_publish(identity, topic, retain=retain) is allowed


@pytest.mark.parametrize(
    ("identity", "topic_filter", "allowed"),
    [
        (CAM, "skerry/v1/cam-1/assignment", True),
        (CAM, "skerry/v1/cam-1/ack", True),
        (CAM, "skerry/v1/cam-1/telemetry", False),
        (CAM, "skerry/v1/cam-1/#", False),
        (CAM, "skerry/v1/cam-1/+", False),
        (CAM, "skerry/v1/+/assignment", False),
        (CAM, "skerry/v1/cam-2/assignment", False),
        (CAM, "#", False),
        (CAM, "+/+/+/+", False),
        (CAM, "$SYS/#", False),
        (INGEST, "skerry/v1/+/telemetry", True),
        (INGEST, "skerry/v1/+/presence", True),
        (INGEST, "skerry/v1/+/assignment", False),
        (INGEST, "#", False),
    ],
)
def test_subscribe(identity: Identity, topic_filter: str, allowed: bool) -> None:  # noqa: FBT001 (parametrized)
    assert access.may_subscribe(identity, topic_filter) is allowed


@pytest.mark.parametrize(
    ("identity", "client_id", "allowed"),
    [
        (CAM, "cam-1", True),
        (CAM, "cam-2", False),
        (CAM, "", False),
        (CAM, "_ingest", False),
        (INGEST, "_ingest", True),
        (INGEST, "_ingest-2", True),
        (INGEST, "cam-1", False),
        (INGEST, "_ingestor", False),
    ],
)
def test_client_id(identity: Identity, client_id: str, allowed: bool) -> None:  # noqa: FBT001 (parametrized)
    assert access.may_use_client_id(identity, client_id) is allowed


def test_a_device_hears_only_what_is_for_it() -> None:
    assert access.may_receive(CAM, "skerry/v1/cam-1/ack")
    assert not access.may_receive(CAM, "skerry/v1/cam-2/ack")
    assert not access.may_receive(CAM, "skerry/v1/cam-1/reported")
    assert access.may_receive(INGEST, "skerry/v1/cam-2/reported")
    assert not access.may_receive(INGEST, "skerry/v1/cam-2/assignment")
