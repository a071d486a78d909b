"""What a device with a valid certificate can do to another one at the broker: nothing.

Real paho clients against the real server. Alice is the device that is attacked, Mallory a device of
the same fleet whose certificate and key are in an attacker's hands.
"""

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from fleet_protocol import messages
from fleet_protocol.messages import Presence
from fleet_protocol.topics import Channel, Topic
from fleet_server.devices.certificates import DeviceCa, read_request
from tests.integration.server.mqtt_client import Client
from tests.integration.server.running_server import EnrolledDevice, RunningServer, eventually
from tests.unit.fleet_server.authority import FAMILY, DeviceKey, Fleet, release, signed_role
from tests.unit.fleet_server.upload_form import CONTENT_TYPE, form

Connect = Callable[..., Client]


@pytest.fixture(scope="module")
def assigned(server: RunningServer, alice: EnrolledDevice) -> None:
    """Give Alice an assignment, so that there is a retained message to steal."""
    new = release()
    metadata = signed_role(server.fleet.publisher(), new)
    body = form(
        ("metadata", None, metadata),
        *(("targets", path, content) for path, content in new.by_path.items()),
    )
    token = server.api_token("admin")
    published = server.request(
        "POST", "/api/v1/releases", token=token, body=body, headers={"Content-Type": CONTENT_TYPE}
    )
    assert published.status == 201, published.data
    wanted = {"family": FAMILY, "version": "1.0.0", "devices": [alice.device_id]}
    assert server.request("PUT", "/api/v1/assignments", token=token, json=wanted).status == 200


@pytest.fixture
def connect(server: RunningServer) -> Iterator[Connect]:
    opened: list[Client] = []

    def open_as(device: EnrolledDevice | tuple[Path, Path] | None, **options: object) -> Client:
        files = device.files if isinstance(device, EnrolledDevice) else device
        if isinstance(device, EnrolledDevice):
            options.setdefault("client_id", device.device_id)
        client = Client(
            **{"port": server.mqtt_port, "ca": server.ca, "files": files, **options}  # type: ignore[arg-type]
        )
        opened.append(client)
        return client

    yield open_as
    for client in opened:
        client.close()


def topic(device: EnrolledDevice, channel: Channel) -> str:
    return str(Topic(device.device_id, channel))


@pytest.mark.usefixtures("assigned")
def test_a_device_gets_its_own_assignment(alice: EnrolledDevice, connect: Connect) -> None:
    client = connect(alice)
    assert client.subscribe(topic(alice, Channel.ASSIGNMENT))
    received = client.next_message()
    assert received.retain
    assert b"x-skerry-assignment" in received.payload


@pytest.mark.usefixtures("assigned")
@pytest.mark.parametrize(
    "topic_filter",
    [
        "skerry/v1/alice/assignment",
        "skerry/v1/alice/ack",
        "skerry/v1/alice/telemetry",
        "skerry/v1/alice/#",
        "skerry/v1/+/assignment",
        "skerry/v1/+/telemetry",
        "skerry/v1/mallory/#",
        "skerry/v1/mallory/+",
        "skerry/#",
        "#",
        "+/+/+/+",
        "$SYS/#",
        "$share/g/skerry/v1/alice/assignment",
    ],
)
def test_another_device_cannot_listen(
    topic_filter: str, mallory: EnrolledDevice, connect: Connect
) -> None:
    client = connect(mallory)
    assert not client.subscribe(topic_filter)
    assert client.messages.empty()


@pytest.mark.usefixtures("assigned")
def test_connecting_leaks_no_retained_message(
    alice: EnrolledDevice, mallory: EnrolledDevice, connect: Connect
) -> None:
    listening = connect(alice)
    assert listening.subscribe(topic(alice, Channel.ASSIGNMENT))
    listening.next_message()
    client = connect(mallory)
    assert client.subscribe(topic(mallory, Channel.ACK))
    assert client.messages.empty()


@pytest.mark.parametrize(
    ("channel", "retain"),
    [
        (Channel.TELEMETRY, False),
        (Channel.EVENT, False),
        (Channel.REPORTED, True),
        (Channel.PRESENCE, True),
        (Channel.ASSIGNMENT, True),
        (Channel.ACK, False),
    ],
)
@pytest.mark.parametrize("qos", [0, 1])
def test_another_device_cannot_write(  # noqa: PLR0913, PLR0917 (a matrix)
    server: RunningServer,
    alice: EnrolledDevice,
    mallory: EnrolledDevice,
    connect: Connect,
    channel: Channel,
    retain: bool,  # noqa: FBT001 (parametrized)
    qos: int,
) -> None:
    listening = connect(alice)
    assert listening.subscribe(topic(alice, Channel.ACK))
    client = connect(mallory)
    client.publish(topic(alice, channel), b"{}", retain=retain, qos=qos)
    assert client.was_cut()
    assert listening.messages.empty()
    assert server.events("mqtt_packet_refused")[-1]["client"] == "mallory"


@pytest.mark.parametrize("channel", [Channel.ASSIGNMENT, Channel.ACK])
def test_a_device_cannot_write_its_own_downlink(
    alice: EnrolledDevice, connect: Connect, channel: Channel
) -> None:
    client = connect(alice)
    assert not client.publish(topic(alice, channel), b"{}")
    assert client.was_cut()


@pytest.mark.parametrize("channel", [Channel.TELEMETRY, Channel.EVENT])
def test_only_the_contract_s_channels_are_retained(
    alice: EnrolledDevice, connect: Connect, channel: Channel
) -> None:
    client = connect(alice)
    assert not client.publish(topic(alice, channel), b"{}", retain=True)
    assert client.was_cut()


def test_taking_over_by_client_id(
    server: RunningServer, alice: EnrolledDevice, mallory: EnrolledDevice, connect: Connect
) -> None:
    victim = connect(alice)
    assert victim.subscribe(topic(alice, Channel.ACK))
    for clean in (True, False):
        attacker = connect(mallory, client_id="alice", clean=clean)
        assert attacker.code == 2 or not attacker.accepted
    for client_id in ("_ingest", "_ingest-2", "", "ALICE", "skerry"):
        assert not connect(mallory, client_id=client_id).accepted
    assert victim.connected
    assert victim.publish(topic(alice, Channel.PRESENCE), messages.encode(Presence(online=True)))
    assert server.request("GET", "/health/ready").json()["components"]["ingest"] == "up"


@pytest.mark.parametrize(
    ("will_topic", "retain"),
    [
        ("skerry/v1/alice/presence", True),
        ("skerry/v1/alice/assignment", True),
        ("skerry/v1/mallory/assignment", True),
        ("skerry/v1/mallory/telemetry", True),
        ("skerry/v1/alice/telemetry", False),
        ("$SYS/x", False),
    ],
)
def test_a_will_on_another_topic(
    mallory: EnrolledDevice,
    connect: Connect,
    will_topic: str,
    retain: bool,  # noqa: FBT001 (parametrized)
) -> None:
    assert not connect(mallory, will=(will_topic, retain)).accepted


def test_no_client_certificate(connect: Connect) -> None:
    assert not connect(None, client_id="alice").accepted


def test_a_certificate_of_another_authority(connect: Connect, tmp_path: Path) -> None:
    online = Fleet.provision(tmp_path / "foreign").data.online
    files = (online / "ingest.crt", online / "ingest.pem")
    assert not connect(files, client_id="alice").accepted
    assert not connect(files, client_id="_ingest").accepted


def test_a_certificate_of_the_device_authority_with_another_key(
    server: RunningServer, alice: EnrolledDevice, connect: Connect, tmp_path: Path
) -> None:
    """Who stole the device authority's key can make certificates in any name, with its own key."""
    online, thief = server.fleet.data.online, DeviceKey.new(alice.device_id)
    authority = DeviceCa.load(
        key_file=online / "device-ca.pem", certificate_file=online / "device-ca.crt"
    )
    made = authority.issue(
        device_id=alice.device_id, key=read_request(thief.csr()), now=datetime.now(UTC)
    )
    files = (tmp_path / "thief.crt", tmp_path / "thief.pem")
    files[0].write_text(made.pem)
    files[1].write_bytes(thief.pem)
    assert connect(files, client_id=alice.device_id).code not in (0, None)


def test_the_server_s_own_certificate_is_no_client(server: RunningServer, connect: Connect) -> None:
    online = server.fleet.data.online
    assert not connect((online / "tls.crt", online / "tls.pem"), client_id="alice").accepted


def test_a_decommissioned_device(server: RunningServer, connect: Connect) -> None:
    gone = server.enroll("gone")
    client = connect(gone)
    assert client.accepted
    token = server.api_token("admin")
    answer = server.request("POST", "/api/v1/devices/gone/decommission", token=token)
    assert answer.json()["decommissioned_ms"] is not None
    assert client.was_cut()
    assert connect(gone).code not in (0, None)


def test_mqtt_5_is_told_to_speak_3(alice: EnrolledDevice, connect: Connect) -> None:
    assert not connect(alice, protocol=MQTTProtocolVersion.MQTTv5).accepted


def test_a_reconnecting_device_replaces_its_older_connection(
    server: RunningServer, alice: EnrolledDevice, connect: Connect
) -> None:
    will = (topic(alice, Channel.PRESENCE), True)
    for _ in range(5):
        older = connect(alice, will=will)
        newer = connect(alice, will=will)
        assert newer.accepted
        assert older.was_cut()
        assert newer.subscribe(topic(alice, Channel.ACK))
        online = messages.encode(Presence(online=True))
        assert newer.publish(topic(alice, Channel.PRESENCE), online, retain=True)
        newer.close()
    token = server.api_token("viewer")
    eventually(lambda: server.request("GET", "/api/v1/devices/alice", token=token).json()["online"])


@contextlib.contextmanager
def raw(server: RunningServer, device: EnrolledDevice) -> Iterator[ssl.SSLSocket]:
    context = ssl.create_default_context(cafile=server.ca)
    context.load_cert_chain(*device.files)
    plain = socket.create_connection(("127.0.0.1", server.mqtt_port), 10)
    with context.wrap_socket(plain, server_hostname="localhost") as connection:
        yield connection


def connect_packet(client_id: str, keep_alive_s: int = 60) -> bytes:
    identity = client_id.encode()
    body = b"\x00\x04MQTT\x04\x02" + struct.pack(">HH", keep_alive_s, len(identity)) + identity
    return bytes((0x10, len(body))) + body


def is_closed(connection: ssl.SSLSocket, within_s: float = 15.0) -> bool:
    connection.settimeout(within_s)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


@pytest.mark.parametrize(
    "sent",
    [
        b"\x10\xff\xff\xff\x7f",
        b"\x10\xff\xff\xff\xff\x7f",
        b"\x30\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x10\x02\x00\x04",
    ],
)
def test_garbage_before_connect(
    server: RunningServer, mallory: EnrolledDevice, sent: bytes
) -> None:
    with raw(server, mallory) as connection:
        connection.sendall(sent)
        assert is_closed(connection)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x32\xff\xff\xff\x7f",
        b"\x34\x05\x00\x01a\x00\x01",
        b"\x82\x02\x00\x01",
        b"\x00\x00",
        b"\x10\x00",
        b"\x30\x02\x00\x09",
    ],
)
def test_garbage_after_connect(server: RunningServer, mallory: EnrolledDevice, sent: bytes) -> None:
    with raw(server, mallory) as connection:
        connection.sendall(connect_packet("mallory"))
        assert connection.recv(4) == b"\x20\x02\x00\x00"
        connection.sendall(sent)
        assert is_closed(connection)


def test_silence_beyond_the_keep_alive_ends_the_connection(
    server: RunningServer, mallory: EnrolledDevice
) -> None:
    with raw(server, mallory) as connection:
        connection.sendall(connect_packet("mallory", keep_alive_s=1))
        assert connection.recv(4) == b"\x20\x02\x00\x00"
        began = time.monotonic()
        assert is_closed(connection)
        assert 1.0 < time.monotonic() - began < 5.0


def test_a_client_that_asks_and_never_reads_is_cut_and_hurts_nobody(
    server: RunningServer, alice: EnrolledDevice, mallory: EnrolledDevice, connect: Connect
) -> None:
    ping = b"\xc0\x00" * 30_000
    with raw(server, mallory) as connection:
        connection.sendall(connect_packet("mallory"))
        connection.settimeout(0.5)
        with contextlib.suppress(OSError):
            for _ in range(200):
                connection.sendall(ping)
        client = connect(alice)
        assert client.publish(
            topic(alice, Channel.PRESENCE), messages.encode(Presence(online=True))
        )


def test_nothing_of_all_that_left_a_session_behind(server: RunningServer) -> None:
    assert server.request("GET", "/health/ready").status == 200
    assert server.events("mqtt_connection_failed") == []
    assert server.events("task_ended") == []
