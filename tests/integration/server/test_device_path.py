"""A device's way through the real server: enrolment, download, assignment, telemetry."""

import time
from datetime import timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Root, Targets
from urllib3.response import BaseHTTPResponse

from fleet_protocol import delta, histogram
from fleet_protocol.assignments import binding_of
from fleet_protocol.messages import Capabilities, Event, EventKind, Presence, Reported
from fleet_protocol.topics import Channel, Topic
from tests.integration.server.device_traffic import (
    STREAM,
    acked,
    connect,
    publish,
    send,
    updater,
    window,
)
from tests.integration.server.running_server import EnrolledDevice, RunningServer, eventually
from tests.unit.fleet_server.authority import FAMILY, DeviceKey, ReleaseFiles, release, stored
from tests.unit.fleet_server.upload_form import CONTENT_TYPE, form


@pytest.fixture(scope="module")
def camera(server: RunningServer) -> EnrolledDevice:
    return server.enroll("camera")


@pytest.fixture(scope="module")
def admin(server: RunningServer) -> str:
    return server.api_token("admin")


@pytest.fixture(scope="module")
def first(server: RunningServer, admin: str) -> ReleaseFiles:
    new = release(size=300_000)
    answer = publish(server, admin, new, version=2)
    assert answer.status == 201, answer.data
    assert answer.json() == {"family": FAMILY, "metadata_version": 2, "releases": ["1.0.0"]}
    return new


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'{"token": "x"}', 400),
        (b'{"token": "x", "csr_pem": "y"}', 401),
        (b'{"token": "' + b"x" * 70_000 + b'", "csr_pem": "y"}', 413),
    ],
)
def test_malformed_enrolment(server: RunningServer, body: bytes, status: int) -> None:
    answer = server.request("POST", "/device/v1/enroll", body=body)
    assert answer.status == status
    assert set(answer.json()) == {"code", "detail", "request_id"}


def test_enrolment_over_https(server: RunningServer) -> None:
    token, key = server.fleet.claim_token("new"), DeviceKey.new("new")
    body = {"token": token, "csr_pem": key.csr()}
    first = server.request("POST", "/device/v1/enroll", json=body)
    again = server.request("POST", "/device/v1/enroll", json=body)
    assert first.status == again.status == 200
    assert first.json() == again.json()
    assert first.json()["mqtt_host"] == "localhost"
    assert first.json()["mqtt_port"] == server.mqtt_port
    body = {"token": token, "csr_pem": DeviceKey.new("new").csr()}
    assert server.request("POST", "/device/v1/enroll", json=body).status == 409
    old = server.fleet.claim_token("late", lifetime=timedelta(seconds=1))
    time.sleep(1.1)
    answer = server.request("POST", "/device/v1/enroll", json={"token": old, "csr_pem": key.csr()})
    assert answer.status in (200, 401)


def test_tuf_client_as_a_device(
    camera: EnrolledDevice, first: ReleaseFiles, tmp_path: Path
) -> None:
    client = updater(camera, tmp_path / "tuf")
    client.refresh()
    for path, content in first.by_path.items():
        target = client.get_targetinfo(path)
        assert target is not None
        downloaded = client.download_target(target, str(tmp_path / "file"))
        assert Path(downloaded).read_bytes() == content
    assert client.get_targetinfo(f"models/{FAMILY}/9.9.9/manifest.json") is None


def test_ranges_and_tags(camera: EnrolledDevice, first: ReleaseFiles) -> None:
    content = first.files["model.onnx"]
    path = f"models/{FAMILY}/1.0.0/{stored(content).sha256}.model.onnx"
    route, key = f"/device/v1/repository/targets/{path}", camera.key

    def get(**headers: str) -> BaseHTTPResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return camera.server.request("GET", route, token=key.token(), headers=named)

    whole = get()
    assert (whole.status, whole.data) == (200, content)
    tag = f'"{stored(content).sha256}"'
    assert whole.headers["ETag"] == tag
    part = get(Range="bytes=1000-")
    assert (part.status, part.data) == (206, content[1000:])
    assert part.headers["Content-Range"] == f"bytes 1000-{len(content) - 1}/{len(content)}"
    beyond = get(Range=f"bytes={len(content)}-")
    assert (beyond.status, beyond.json()["code"]) == (416, "range_not_satisfiable")
    assert beyond.headers["Content-Range"] == f"bytes */{len(content)}"
    nonsense = get(Range="bytes=nonsense")
    assert (nonsense.status, nonsense.json()["code"]) == (400, "malformed")
    assert get(Range="bytes=10-", If_Range='"another"').status == 200
    assert get(If_None_Match=tag).status == 304


def test_a_delta_is_made_while_the_whole_file_is_there(
    camera: EnrolledDevice, first: ReleaseFiles
) -> None:
    digest = stored(first.files["model.onnx"]).sha256
    name = f"models/{FAMILY}/1.0.0/{digest}.model.onnx"

    def get(base: str) -> BaseHTTPResponse:
        route = f"/device/v1/repository/deltas/{base}/{name}"
        return camera.server.request("GET", route, token=camera.key.token())

    assert get("0" * 64).status == 404
    early = get(digest)
    assert (early.status, early.json()["code"]) == (202, "not_ready")
    deadline = time.monotonic() + 30
    while (answer := get(digest)).status == 202 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert answer.status == 200
    assert answer.data.startswith(delta.header(digest, digest))
    assert len(answer.data) < len(first.files["model.onnx"]) / 10
    stranger = camera.server.request("GET", f"/device/v1/repository/deltas/{digest}/{name}")
    assert stranger.status == 401


@pytest.mark.parametrize(
    "path",
    [
        "targets/models/fashion_mnist/1.0.0/manifest.json",
        "targets/models/fashion_mnist/1.0.0/" + "0" * 64 + ".model.onnx",
        "targets/models/fashion_mnist/1.0.0/" + "0" * 64 + ".../x",
        "targets/..%2f..%2f..%2fonline%2fdevice-ca.pem",
        "targets/models/..%2f..%2f..%2fonline/x/" + "0" * 64 + ".y",
        "targets/%2fetc%2fpasswd",
        "deltas/" + "0" * 64 + "/models/fashion_mnist/1.0.0/" + "0" * 64 + ".model.onnx",
        "deltas/..%2f..%2f..%2fonline/models/fashion_mnist/1.0.0/" + "0" * 64 + ".model.onnx",
        "deltas/models/fashion_mnist",
        "metadata/..%2f..%2fonline%2ftls.pem",
        "metadata/2.root.json",
        "metadata/timestamp.json.tmp",
    ],
)
def test_paths_that_lead_nowhere(camera: EnrolledDevice, path: str) -> None:
    answer = camera.server.request("GET", f"/device/v1/repository/{path}", token=camera.key.token())
    assert answer.status == 404
    assert answer.json()["code"] == "not_found"


def test_a_path_with_nul_is_refused(camera: EnrolledDevice) -> None:
    answer = camera.server.request(
        "GET", "/device/v1/repository/metadata/%00.json", token=camera.key.token()
    )
    assert (answer.status, answer.json()["code"]) == (400, "malformed")


def test_strangers_get_no_metadata(
    server: RunningServer, camera: EnrolledDevice, admin: str
) -> None:
    route = "/device/v1/repository/metadata/timestamp.json"
    for token in (None, admin, DeviceKey.new("camera").token(), DeviceKey.new("other").token()):
        answer = server.request("GET", route, token=token)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert server.request("GET", route, token=camera.key.token()).status == 200
    published = "/api/v1/repository/metadata/timestamp.json"
    assert server.request("GET", published, token=camera.key.token()).status == 401
    assert server.request("GET", published, token=admin).status == 200


def test_assignment_telemetry_and_the_operator_s_view(
    server: RunningServer, camera: EnrolledDevice, first: ReleaseFiles, admin: str
) -> None:
    with connect(camera) as client:
        assert client.subscribe(str(Topic("camera", Channel.ASSIGNMENT)))
        assert client.subscribe(str(Topic("camera", Channel.ACK)))
        wanted = {"family": FAMILY, "version": "1.0.0", "devices": ["camera"]}
        answer = server.request("PUT", "/api/v1/assignments", token=admin, json=wanted)
        assert answer.json()["assigned"] == [{"device_id": "camera", "assignment_version": 1}]

        root = Metadata[Root].from_bytes(server.fleet.authority.director_root.read_bytes()).signed
        document = Metadata[Targets].from_bytes(bytes(client.next_message().payload))
        root.verify_delegate("targets", document.signed_bytes, document.signatures)
        assert binding_of(document.signed.unrecognized_fields, target_count=1).device_id == "camera"
        manifest = f"models/{FAMILY}/1.0.0/manifest.json"
        assert document.signed.targets[manifest].length == len(first.files["manifest.json"])

        send(client, camera, Channel.PRESENCE, Presence(online=True))
        send(client, camera, Channel.TELEMETRY, window(2))
        assert acked(client) == 0
        send(client, camera, Channel.TELEMETRY, window(1))
        assert acked(client) == 2
        send(client, camera, Channel.TELEMETRY, window(2))
        assert acked(client) == 2
        assert client.publish(str(Topic("camera", Channel.TELEMETRY)), b"nonsense")
        event = Event(
            stream="event-0123456789abcdef",
            sequence=1,
            covers_from=1,
            at_ms=1,
            kind=EventKind.ENROLLED,
            detail="hello",
        )
        send(client, camera, Channel.EVENT, event)
        client.next_message()
        report = Reported(
            at_ms=1,
            agent_version="1",
            assignment_version=1,
            runtime_up=True,
            capabilities=Capabilities(machine="x86_64", cpu_count=2),
        )
        send(client, camera, Channel.REPORTED, report)

        def view() -> dict[str, object]:
            shown: dict[str, object] = server.request(
                "GET", "/api/v1/devices/camera", token=admin
            ).json()
            return shown

        eventually(lambda: view()["reported"] is not None)
        assert view()["online"] is True
        assert view()["update"] == "updating"
        summary = server.request("GET", "/api/v1/telemetry/summary", token=admin).json()
        assert (summary["windows"], summary["releases"][0]["requests"]) == (2, 200)
        latency = summary["releases"][0]["latency"]
        assert latency["count"] == 200
        assert latency["p99_us"] == pytest.approx(1000, rel=histogram.RELATIVE_ERROR)
        route = "/api/v1/telemetry/devices/camera"
        pages = server.request("GET", f"{route}/windows?limit=1", token=admin).json()
        assert [item["sequence"] for item in pages["windows"]] == [2]
        after = pages["next_after"]
        pages = server.request("GET", f"{route}/windows?after={after}", token=admin).json()
        assert [item["sequence"] for item in pages["windows"]] == [1]
        streams = server.request("GET", f"{route}/summary", token=admin).json()["streams"]
        assert {"stream": STREAM, "acked": 2, "ahead": 0} in streams
        events = server.request("GET", "/api/v1/devices/camera/events", token=admin).json()
        assert [item["detail"] for item in events["events"]] == ["hello"]
        client.break_off()
    eventually(lambda: view()["online"] is False)


@pytest.mark.usefixtures("camera", "first")
def test_operator_commands(server: RunningServer, admin: str, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(admin + "\n")
    link = ("--server", server.url, "--token-file", str(token_file), "--ca", str(server.ca))

    def fleet(*arguments: str) -> tuple[int, str]:
        done = server.skerry("fleet", *arguments, *link)
        assert "Traceback" not in done.stderr
        lines = (done.stdout + done.stderr).splitlines(keepends=True)
        warnings.update(line for line in lines if line.startswith("WARNING: "))
        return done.returncode, "".join(line for line in lines if line not in warnings)

    warnings: set[str] = set()
    assert "camera" in fleet("devices")[1]
    assert "1.0.0" in fleet("releases")[1]
    assert fleet("assign", FAMILY, "1.0.0", "--device", "camera")[0] == 0
    status, said = fleet("assign", FAMILY, "9.9.9", "--all")
    assert (status, said) == (1, f"error: there is no release {FAMILY} 9.9.9\n")
    assert fleet("assign", FAMILY, "1.0.0")[0] == 1
    assert fleet("telemetry", "--json")[0] == 0
    assert fleet("label", "camera", "site=oslo", "rack=7") == (0, "camera: rack=7, site=oslo\n")
    assert fleet("label", "camera", "rack-") == (0, "camera: site=oslo\n")
    assert "camera" in fleet("devices", "--selector", "site=oslo")[1]
    assert fleet("devices", "--selector", "site!=oslo", "--search", "camera") == (
        0,
        "No such device is enrolled.\n",
    )
    assert "character 6" in fleet("devices", "--selector", "site=")[1]
    assert "site=oslo" in fleet("group", "save", "north", "--selector", "site==oslo")[1]
    assert "camera" in fleet("devices", "--group", "north")[1]
    assert all(f"list of {FAMILY} has" in each for each in warnings)  # it was made for 30 days
    assert warnings
    token_file.write_text("wrong")
    assert fleet("devices") == (1, "error: the token is not known to this server\n")


@pytest.mark.parametrize(
    ("method", "path", "role", "status"),
    [
        ("GET", "/api/v1/devices", None, 401),
        ("GET", "/api/v1/devices", "publisher", 200),
        ("GET", "/api/v1/devices/nobody", "viewer", 404),
        ("GET", "/api/v1/devices?limit=0", "viewer", 422),
        ("GET", "/api/v1/devices?limit=many", "viewer", 422),
        ("GET", "/api/v1/telemetry/summary?from=5&to=4", "viewer", 422),
        ("GET", "/api/v1/telemetry/devices/nobody/windows", "viewer", 404),
        ("GET", "/api/v1/devices/nobody/events", "viewer", 404),
        ("GET", f"/api/v1/releases/{FAMILY}/9.9.9", "viewer", 404),
        ("GET", "/api/v1/releases/..%2f/x", "viewer", 404),
        ("GET", "/api/v1/repository/metadata/timestamp.json", "viewer", 403),
        ("GET", "/api/v1/repository/metadata/timestamp.json", "operator", 403),
        ("POST", "/api/v1/releases", "operator", 403),
        ("POST", "/api/v1/releases", "publisher", 400),
        ("PUT", "/api/v1/assignments", "publisher", 403),
        ("PUT", "/api/v1/assignments", "operator", 422),
        ("POST", "/api/v1/devices/camera/decommission", "operator", 403),
        ("DELETE", "/api/v1/devices", "admin", 405),
        ("GET", "/nowhere", None, 404),
        ("GET", "/health/live", None, 200),
    ],
)
def test_answers(  # noqa: PLR0913, PLR0917 (a table)
    server: RunningServer,
    method: str,
    path: str,
    role: str | None,
    status: int,
    tokens: dict[str, str],
) -> None:
    answer = server.request(method, path, token=tokens[role] if role else None)
    assert answer.status == status, answer.data
    assert answer.headers["X-Request-Id"]
    if status >= 400:
        assert set(answer.json()) == {"code", "detail", "request_id"}
        assert answer.json()["detail"]


@pytest.fixture(scope="module")
def tokens(server: RunningServer, admin: str) -> dict[str, str]:
    roles = ("viewer", "publisher", "operator")
    return {role: server.api_token(role) for role in roles} | {"admin": admin}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"family": 1}',
        b'{"family": "a", "version": "1", "devices": null, "x": 1}',
    ],
)
def test_malformed_assignments(server: RunningServer, admin: str, body: bytes) -> None:
    answer = server.request(
        "PUT",
        "/api/v1/assignments",
        token=admin,
        body=body,
        headers={"Content-Type": "application/json"},
    )
    assert answer.status == 422
    assert set(answer.json()) == {"code", "detail", "request_id"}


def test_a_refused_upload_is_told_to_a_client_that_is_still_sending(
    server: RunningServer, admin: str, first: ReleaseFiles
) -> None:
    second = release("2.0.0", size=20_000_000)
    answer = publish(server, admin, first, second, version=7)
    assert answer.status == 409
    assert "3 is next" in answer.json()["detail"]
    body = form(("metadata", None, b"x" * 5_000_000))
    headers = {"Content-Type": CONTENT_TYPE}
    answer = server.request("POST", "/api/v1/releases", token=admin, body=body, headers=headers)
    assert answer.status == 413
