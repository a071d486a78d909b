"""What publishers and devices send to the server: releases, messages, requests of a TUF client."""

import time
from collections.abc import Iterator
from pathlib import Path

import urllib3
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface
from urllib3.response import BaseHTTPResponse

from fleet_protocol import histogram, messages
from fleet_protocol.messages import Ack, ModelWindow, TelemetryWindow
from fleet_protocol.topics import Channel, Topic
from tests.integration.server.mqtt_client import Client
from tests.integration.server.running_server import EnrolledDevice, RunningServer
from tests.unit.fleet_server.authority import FAMILY, ReleaseFiles, signed_role
from tests.unit.fleet_server.upload_form import CONTENT_TYPE, form

STREAM = "telemetry-0123456789abcdef"


class DeviceFetcher(FetcherInterface):
    """Fetches as a device: with a fresh token for each request."""

    def __init__(self, device: EnrolledDevice) -> None:
        self._device = device

    def _fetch(self, url: str) -> Iterator[bytes]:
        headers = {"Authorization": f"Bearer {self._device.key.token()}"}
        with urllib3.PoolManager(ca_certs=str(self._device.server.ca), retries=False) as pool:
            answer = pool.request("GET", url, headers=headers)
        if answer.status != 200:
            raise DownloadHTTPError(f"{url}: {answer.status}", answer.status)
        yield answer.data


def updater(device: EnrolledDevice, folder: Path) -> Updater:
    """Return a TUF client of a device; it keeps metadata and files in a folder."""
    folder.mkdir(exist_ok=True)
    base = f"{device.server.url}/device/v1/repository"
    return Updater(
        metadata_dir=str(folder),
        metadata_base_url=f"{base}/metadata/",
        target_base_url=f"{base}/targets/",
        target_dir=str(folder),
        fetcher=DeviceFetcher(device),
        bootstrap=device.server.fleet.authority.release_root.read_bytes(),
    )


def publish(
    server: RunningServer, token: str, *new: ReleaseFiles, version: int
) -> BaseHTTPResponse:
    """Upload the last of a publisher's releases; the role signs them all."""
    files = [item for each in new[-1:] for item in each.by_path.items()]
    body = form(
        ("metadata", "role.json", signed_role(server.fleet.publisher(), *new, version=version)),
        *(("targets", path, content) for path, content in files),
    )
    headers = {"Content-Type": CONTENT_TYPE}
    return server.request("POST", "/api/v1/releases", token=token, body=body, headers=headers)


def connect(device: EnrolledDevice) -> Client:
    """Connect a device to the broker."""
    client = Client(
        port=device.server.mqtt_port,
        ca=device.server.ca,
        files=device.files,
        client_id=device.device_id,
        will=(str(Topic(device.device_id, Channel.PRESENCE)), True),
    )
    assert client.accepted
    return client


def send(client: Client, device: EnrolledDevice, channel: Channel, message: object) -> None:
    """Publish a message of a device."""
    payload = messages.encode(message)  # type: ignore[arg-type]
    retain = channel in (Channel.REPORTED, Channel.PRESENCE)
    assert client.publish(str(Topic(device.device_id, channel)), payload, retain=retain)


def window(sequence: int) -> TelemetryWindow:
    """Return telemetry of a hundred calls."""
    now_ms = int(time.time() * 1000)
    model = ModelWindow(
        family=FAMILY,
        version="1.0.0",
        variant="fp32",
        requests=100,
        latency_us=histogram.of_values([1000.0] * 100),
    )
    return TelemetryWindow(
        stream=STREAM,
        sequence=sequence,
        covers_from=sequence,
        start_ms=now_ms,
        end_ms=now_ms,
        models=[model],
    )


def acked(client: Client) -> int:
    """Return which window the next ack confirms."""
    ack = messages.decode(bytes(client.next_message().payload), Ack)
    assert ack.stream == STREAM
    return ack.sequence
