"""An application that calls a device at a steady rate from a process of its own.

A call's latency counts from the moment when it was sent. One that could not be sent when it was
due, because the answer before it came too late, counts from when it was due. Nothing is tried
again: a call without a good answer has failed.
"""

import argparse
import gc
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec

from benchmarks.measuring.http_client import HttpClient, HttpClientError, header
from skerry.demo import images
from skerry.demo.layout import FAMILY, reference_model

_JSON_LENGTH = "Inference-Header-Content-Length"
_STOP_S = 10.0
_PAUSE_S = 0.02
_START_S = 10.0


class Call(msgspec.Struct, frozen=True, array_like=True):
    """One answered call.

    Attributes:
        began_s: from when on its latency counts, on the monotonic clock.
        latency_s: until the last byte of the answer.
        late_s: how long the caller itself was late, in sending what it could have sent.
        version: of the release that answered.
    """

    began_s: float
    latency_s: float
    late_s: float
    version: str


class Records(msgspec.Struct, frozen=True):
    """What the application saw; a message for each call that failed."""

    calls: list[Call]
    failed: list[str]


class SteadyCalls:
    """The process; leave it running, then `stop`."""

    def __init__(self, socket: Path, *, rate_per_s: float, records: Path) -> None:
        """Start it.

        Args:
            socket: of the runtime.
            rate_per_s: calls.
            records: takes what it saw.
        """
        self._records = records
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", __spec__.name, str(socket), str(records)),
                *("--rate", str(rate_per_s)),
            ],
            start_new_session=True,
        )

    def stop(self) -> Records:
        """Let it finish the call under way and end; return what it saw.

        Raises:
            SystemExit: it failed; its own words are on standard error.
        """
        self._process.terminate()
        if self._process.wait(_STOP_S):
            raise SystemExit("the application failed")
        return msgspec.msgpack.decode(self._records.read_bytes(), type=Records)


class _Caller:
    """One kept-alive connection that posts the same image again and again."""

    def __init__(self, socket: Path) -> None:
        image = images.load(reference_model()).inputs[:1]
        tensor = {
            "name": "image",
            "datatype": "FP32",
            "shape": list(image.shape),
            "parameters": {"binary_data_size": image.nbytes},
        }
        described = msgspec.json.encode(
            {"inputs": [tensor], "parameters": {"binary_data_output": True}}
        )
        self._body = described + image.tobytes()
        self._head = (
            f"POST /v2/models/{FAMILY}/infer HTTP/1.1\r\n"
            "Host: localhost\r\n"
            "Content-Type: application/octet-stream\r\n"
            f"{_JSON_LENGTH}: {len(described)}\r\n"
            f"Content-Length: {len(self._body)}\r\n"
            "\r\n"
        ).encode()
        self._socket = socket
        self._client = HttpClient(socket)

    def call(self) -> tuple[float, str]:
        """Return when the answer was there and which release gave it.

        Raises:
            OSError: the connection broke.
            HttpClientError: the answer is no success.
        """
        headers, body = self._client.request(self._head, self._body)
        answered_s = time.monotonic()
        length = int(header(headers, _JSON_LENGTH.lower().encode()))
        return answered_s, msgspec.json.decode(body[:length])["model_version"]

    def connect_anew(self) -> None:
        """Leave a connection that is of no use any more.

        Raises:
            OSError: nobody listens.
        """
        self._client.close()
        self._client = HttpClient(self._socket)


def _run(caller: _Caller, period_s: float, stopping: threading.Event) -> Records:
    seen = Records([], [])
    due_s = free_s = time.monotonic()
    while not stopping.is_set():
        time.sleep(max(0.0, due_s - time.monotonic()))
        sent_s = time.monotonic()
        began_s = due_s if free_s > due_s else sent_s
        late_s = sent_s - max(due_s, free_s)
        try:
            free_s, version = caller.call()
            seen.calls.append(Call(began_s, free_s - began_s, late_s, version))
        except (OSError, HttpClientError) as error:
            seen.failed.append(str(error))
            time.sleep(_PAUSE_S)
            caller.connect_anew()
            free_s = time.monotonic()
        due_s += period_s
    return seen


def main() -> int:
    """Call until SIGTERM; return the exit status."""
    parser = argparse.ArgumentParser(description="Calls a device at a steady rate until SIGTERM.")
    parser.add_argument("socket", type=Path, help="of the runtime")
    parser.add_argument("records", type=Path, help="the file that takes what was seen")
    parser.add_argument("--rate", type=float, required=True, help="calls a second")
    arguments = parser.parse_args()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    caller = _Caller(arguments.socket)
    # A collection of its own would look like a slow answer.
    gc.freeze()
    gc.disable()
    seen = _run(caller, 1 / arguments.rate, stopping)
    arguments.records.write_bytes(msgspec.msgpack.encode(seen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
