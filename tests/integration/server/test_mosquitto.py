"""The server with a Mosquitto beside it, configured by `skerry server broker-config`."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import msgspec
import pytest

from fleet_protocol import messages
from fleet_protocol.command_answers import Answer, Outcome
from fleet_protocol.commands import Mailbox, decode_command, decode_mailbox, payload_of
from fleet_protocol.messages import MAX_MESSAGE_BYTES, Ack, TelemetryWindow
from fleet_protocol.topics import Channel, Topic
from fleet_server.broker import sessions
from tests.integration.server.mqtt_client import Client
from tests.integration.server.running_server import (
    EnrolledDevice,
    RunningServer,
    eventually,
)
from tests.simulators.mosquitto import Mosquitto
from tests.unit.fleet_server.authority import Fleet

STREAM = "telemetry-0123456789abcdef"
WITHIN_S = 60.0
"""The promise for a device that is shut out."""


@pytest.fixture(scope="module")
def broker(provisioned: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    fleet = provisioned.copy_to(tmp_path_factory.mktemp("server") / "a")
    server = RunningServer(fleet)
    broker = Mosquitto.beside(server).start()
    try:
        server.start()
        yield broker
    finally:
        server.stop()
        broker.stop()
    assert "traceback" not in server.log_path.read_text().lower()


def connect(device: EnrolledDevice, **options: object) -> Client:
    server = device.server
    wanted = {"client_id": device.device_id, "files": device.files, "port": server.mqtt_port}
    return Client(ca=server.ca, **(wanted | options))  # type: ignore[arg-type]


def window(sequence: int) -> bytes:
    now_ms = time.time_ns() // 1_000_000
    made = TelemetryWindow(
        stream=STREAM, sequence=sequence, covers_from=sequence, start_ms=now_ms, end_ms=now_ms
    )
    return messages.encode(made)


def send(client: Client, device: EnrolledDevice, sequence: int) -> int:
    """Send a window as often as an agent would, until the server has stored it."""
    topic = str(Topic(device.device_id, Channel.TELEMETRY))
    assert client.publish(topic, window(sequence))
    return messages.decode(bytes(client.next_message().payload), Ack).sequence


def stored(device: EnrolledDevice) -> list[int]:
    database = device.server.fleet.data.database
    with closing(sqlite3.connect(database)) as reader:
        query = "SELECT sequence FROM telemetry_windows WHERE device_id = ? ORDER BY sequence"
        return [row[0] for row in reader.execute(query, (device.device_id,))]


@pytest.fixture(scope="module")
def alice(broker: Mosquitto) -> EnrolledDevice:
    return broker.server.enroll("alice")


@pytest.fixture(scope="module")
def mallory(broker: Mosquitto) -> EnrolledDevice:
    return broker.server.enroll("mallory")


def test_a_device_is_confined_to_its_prefix(
    broker: Mosquitto, alice: EnrolledDevice, mallory: EnrolledDevice
) -> None:
    presence = str(Topic("alice", Channel.PRESENCE))
    with connect(alice) as hers:
        hers.subscribe(str(Topic("alice", Channel.ACK)))
        online = messages.encode(messages.Presence(online=True))
        assert hers.publish(presence, online, retain=True)
        with connect(mallory, will=(presence, True)) as his:
            for wanted in ("#", "+/+/+/+", "skerry/v1/alice/ack", "$SYS/#", "$share/a/skerry/#"):
                his.subscribe(wanted)
            his.publish(str(Topic("alice", Channel.TELEMETRY)), window(7))
            his.publish(str(Topic("alice", Channel.ASSIGNMENT)), b"{}", retain=True)
            his.publish(str(Topic("mallory", Channel.ACK)), b"{}")
            assert send(hers, alice, 1) == 1
            with connect(mallory, client_id="alice") as posing:  # is named mallory all the same
                assert posing.accepted
                assert his.was_cut()
                posing.break_off()
        assert send(hers, alice, 2) == 2
        assert hers.connected
        hers.subscribe(str(Topic("alice", Channel.ASSIGNMENT)))
        assert send(hers, alice, 3) == 3
        assert hers.messages.empty()
    assert his.messages.empty()
    assert stored(alice) == [1, 2, 3]
    viewer = broker.server.api_token("viewer")
    found = broker.server.request("GET", "/api/v1/devices/alice", token=viewer).json()
    assert found["online"] is True
    assert not broker.server.events("uplink_malformed")


def test_commands_and_answers_are_nobody_elses(
    broker: Mosquitto, alice: EnrolledDevice, mallory: EnrolledDevice
) -> None:
    """The retained mailbox of a device goes to that device; its answer comes from no other."""
    server = broker.server
    admin = server.api_token("admin")
    hers, theirs = (str(Topic(name, Channel.COMMANDS)) for name in ("alice", "mallory"))
    order = {"devices": ["alice"], "action": {"kind": "diagnostics"}}
    (issued,) = server.request("POST", "/api/v1/commands", token=admin, json=order).json()[
        "commands"
    ]
    with connect(alice) as client, connect(mallory) as thief:
        for wanted in (hers, theirs, "skerry/v1/+/commands", "skerry/v1/alice/#"):
            thief.subscribe(wanted)
        thief.publish(hers, messages.encode(Mailbox()), retain=True)  # to take hers away
        client.subscribe(hers)
        (envelope,) = decode_mailbox(bytes(client.next_message().payload)).commands
        assert decode_command(payload_of(envelope)).id == issued["id"]
        assert thief.messages.empty()
    body = msgspec.to_builtins(
        Answer(command_id=issued["id"], outcome=Outcome.DONE, detail="", ended_ms=1)
    )
    statuses = [
        server.request("POST", "/device/v1/answers", token=who.key.token(), json=body).status
        for who in (mallory, alice)
    ]
    assert statuses == [404, 204]


def test_strangers_and_what_is_too_large_are_refused(
    broker: Mosquitto, alice: EnrolledDevice
) -> None:
    assert not connect(alice, files=None).accepted
    with connect(alice) as client:
        topic = str(Topic("alice", Channel.TELEMETRY))
        client.publish(topic, bytes(MAX_MESSAGE_BYTES + 4096), qos=0)
        assert client.was_cut()
    assert "oversize packet" in broker.log_path.read_text()


def test_nothing_that_was_acknowledged_is_lost_with_the_broker(broker: Mosquitto) -> None:
    device = broker.server.enroll("durable")
    acknowledged = 0
    for life in range(3):
        with connect(device) as client:
            client.subscribe(str(Topic(device.device_id, Channel.ACK)))
            for _ in range(5):
                acknowledged = send(client, device, acknowledged + 1)
            client.publish(
                str(Topic(device.device_id, Channel.TELEMETRY)), window(acknowledged + 1)
            )
            broker.kill()
        assert stored(device)[:acknowledged] == list(range(1, 5 * (life + 1) + 1))
        broker.start()
        eventually(broker.server.is_ready)
    assert acknowledged == 15


def test_a_revoked_device_is_off_within_a_minute_and_stays_off(
    broker: Mosquitto, mallory: EnrolledDevice, alice: EnrolledDevice
) -> None:
    server = broker.server
    hers, his = connect(alice), connect(mallory)
    began = time.monotonic()
    path = "/api/v1/devices/mallory/revoke"
    assert server.request("POST", path, token=server.api_token("admin")).status == 200
    assert his.was_cut()
    assert time.monotonic() - began < WITHIN_S
    assert not connect(mallory).accepted
    assert hers.connected
    broker.kill()
    broker.start()
    assert not connect(mallory).accepted
    assert connect(alice).accepted


def test_what_was_shut_out_while_the_broker_was_away_does_not_come_back(broker: Mosquitto) -> None:
    server, device = broker.server, broker.server.enroll("absent")
    assert connect(device).accepted
    broker.kill()
    listed = len(server.events("revocation_list_written"))
    path = "/api/v1/devices/absent/decommission"
    assert server.request("POST", path, token=server.api_token("admin")).status == 200
    eventually(lambda: len(server.events("revocation_list_written")) > listed)
    broker.start()
    assert not connect(device).accepted


def test_the_control_socket_carries_nothing(broker: Mosquitto, alice: EnrolledDevice) -> None:
    with connect(alice) as client:
        sessions.end(broker.files.control, "alice")
        assert client.was_cut()
    assert broker.files.control.parent.stat().st_mode & 0o077 == 0
