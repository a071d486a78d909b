"""What the demo reads from the fleet server: the same API that an operator uses."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import urllib3

from skerry.demo.errors import DemoError

_OK = 200
_BAD_REQUEST = 400
_UNAVAILABLE = 503
_REACHED_WITHIN_S = 20.0
_RETRY_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class StoredWindow:
    """A telemetry window as the server stored it."""

    sequence: int
    covers_from: int
    start_ms: int
    end_ms: int
    requests: int


class FleetApi:
    """A thin client of ``/api/v1``."""

    def __init__(self, *, url: str, ca_file: Path, token: str) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self._pool = urllib3.PoolManager(
            ca_certs=str(ca_file),
            timeout=urllib3.Timeout(connect=5, read=30),
            retries=urllib3.Retry(0),
        )

    def call(
        self, method: Literal["GET", "PUT"], path: str, body: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 (JSON)
        """Send a request and return the answer's JSON; a server that is down is waited for.

        Every request of the demo may be sent twice, so one that was cut off is sent again.

        Raises:
            DemoError: the server stays away or answers with an error.
        """
        deadline = time.monotonic() + _REACHED_WITHIN_S
        while True:
            try:
                response = self._pool.request(
                    method, f"{self._url}{path}", headers=self._headers, json=body
                )
            except urllib3.exceptions.HTTPError as error:
                if time.monotonic() > deadline:
                    raise DemoError(f"the fleet server cannot be reached: {error}") from error
                time.sleep(_RETRY_PAUSE_S)
                continue
            if response.status != _UNAVAILABLE or time.monotonic() > deadline:
                break
            time.sleep(_RETRY_PAUSE_S)
        if response.status >= _BAD_REQUEST:
            raise DemoError(f"{method} {path} was answered {response.status}: {response.data!r}")
        return json.loads(response.data)

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def ready(self) -> bool:
        """Say whether the server answers and is ready."""
        try:
            return self._pool.request("GET", f"{self._url}/health/ready").status == _OK
        except urllib3.exceptions.HTTPError:
            return False

    def devices(self) -> dict[str, dict[str, Any]]:
        """Return the devices by id."""
        return {item["id"]: item for item in self.call("GET", "/api/v1/devices")["devices"]}

    def assign(self, version: str, family: str, devices: list[str] | None) -> None:
        """Assign a release to some devices, or to all."""
        body = {"family": family, "version": version, "devices": devices}
        self.call("PUT", "/api/v1/assignments", body)

    def windows(self, device: str) -> list[StoredWindow]:
        """Return all stored telemetry windows of a device, in order."""
        windows: list[StoredWindow] = []
        cursor = ""
        while True:
            page = self.call("GET", f"/api/v1/telemetry/devices/{device}/windows?limit=200{cursor}")
            windows.extend(
                StoredWindow(
                    item["sequence"],
                    item["covers_from"],
                    item["start_ms"],
                    item["end_ms"],
                    sum(model["requests"] for model in item["models"]),
                )
                for item in page["windows"]
            )
            if page["next_after"] is None:
                return sorted(windows, key=lambda window: window.sequence)
            cursor = f"&after={page['next_after']}"
