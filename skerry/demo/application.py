"""What an application on a device does: it sends images to the agent and reads the answers.

Only the standard library and numpy: any client of the Open Inference Protocol V2 would do. Requests
alternate between the Unix socket and loopback TCP, and between JSON and binary tensors.
"""

import http.client
import json
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from skerry.demo.errors import DemoError
from skerry.demo.images import LabelledImages
from skerry.demo.layout import FAMILY, HOST

Transport = Literal["unix", "tcp"]
Encoding = Literal["json", "binary"]
WAYS: tuple[tuple[Transport, Encoding], ...] = (
    ("unix", "binary"),
    ("tcp", "json"),
    ("unix", "json"),
    ("tcp", "binary"),
)

_ANSWER_WITHIN_S = 15.0
"""An image without an answer after this long, retries included, has failed."""

_RETRY_PAUSE_S = 0.02
_OK = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered call."""

    label: int
    version: str
    latency_s: float
    attempts: int


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Application:
    """Calls one device; not to be shared between threads."""

    def __init__(self, *, unix_socket: Path, tcp_port: int) -> None:
        self._connections: dict[Transport, http.client.HTTPConnection] = {
            "unix": _UnixConnection(unix_socket, _ANSWER_WITHIN_S),
            "tcp": http.client.HTTPConnection(HOST, tcp_port, timeout=_ANSWER_WITHIN_S),
        }

    def classify(
        self, image: npt.NDArray[np.float32], transport: Transport, encoding: Encoding
    ) -> Answer:
        """Send one image and return the answer; a lost connection is tried again.

        Raises:
            DemoError: the device answered with an error, or not at all in time.
        """
        headers, body = _encode(image, encoding)
        connection = self._connections[transport]
        deadline = time.monotonic() + _ANSWER_WITHIN_S
        attempts = 0
        while True:
            attempts += 1
            started = time.perf_counter()
            try:
                connection.request("POST", f"/v2/models/{FAMILY}/infer", body, headers)
                response = connection.getresponse()
                payload = response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if time.monotonic() > deadline:
                    raise DemoError(
                        f"no answer within {_ANSWER_WITHIN_S:.0f} s: {error}"
                    ) from error
                time.sleep(_RETRY_PAUSE_S)
                continue
            latency_s = time.perf_counter() - started
            if response.status != _OK:
                raise DemoError(f"the device answered {response.status}: {payload[:200]!r}")
            header_length = response.headers.get("Inference-Header-Content-Length")
            label, version = _decode(payload, header_length)
            return Answer(label, version, latency_s, attempts)

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections.values():
            connection.close()


def _encode(image: npt.NDArray[np.float32], encoding: Encoding) -> tuple[dict[str, str], bytes]:
    tensor: dict[str, object] = {"name": "image", "datatype": "FP32", "shape": list(image.shape)}
    if encoding == "json":
        tensor["data"] = image.ravel().tolist()
        return {"Content-Type": "application/json"}, json.dumps({"inputs": [tensor]}).encode()
    raw = image.tobytes()
    tensor["parameters"] = {"binary_data_size": len(raw)}
    request = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    header = json.dumps(request).encode()
    return {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(header)),
    }, header + raw


def _decode(payload: bytes, header_length: str | None) -> tuple[int, str]:
    split = len(payload) if header_length is None else int(header_length)
    answer = json.loads(payload[:split])
    output = answer["outputs"][0]
    if split == len(payload):
        logits = output["data"]
    else:
        logits = struct.unpack(f"<{(len(payload) - split) // 4}f", payload[split:])
    return max(range(len(logits)), key=logits.__getitem__), str(answer["model_version"])


@dataclass(slots=True)
class Tally:
    """What the applications of one device saw; shared by their threads."""

    sent: int = 0
    failed: int = 0
    retried: int = 0
    longest_gap_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    last_failure: str = ""
    versions: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, answer: Answer) -> None:
        """Count an answer."""
        with self._lock:
            self.sent += 1
            self.retried += answer.attempts - 1
            self.latencies_s.append(answer.latency_s)
            self.versions[answer.version] = self.versions.get(answer.version, 0) + 1

    def lost(self, reason: str) -> None:
        """Count an image that got no answer."""
        with self._lock:
            self.sent += 1
            self.failed += 1
            self.last_failure = reason


class Traffic:
    """Sends images to one device at a steady rate from its own thread, until it is stopped."""

    def __init__(
        self, *, application: Application, images: LabelledImages, tally: Tally, rate_per_s: float
    ) -> None:
        self._application = application
        self._images = images
        self._tally = tally
        self._period_s = 1.0 / rate_per_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the call under way and end."""
        self._stopping.set()
        self._thread.join()
        self._application.close()

    def _run(self) -> None:
        ways = cycle(WAYS)
        last_answer_at = time.monotonic()
        for index in cycle(range(len(self._images))):
            if self._stopping.wait(self._period_s):
                return
            try:
                self._tally.answered(
                    self._application.classify(self._images.inputs[index : index + 1], *next(ways))
                )
            except DemoError as error:
                self._tally.lost(str(error))
            now = time.monotonic()
            self._tally.longest_gap_s = max(
                self._tally.longest_gap_s, now - last_answer_at - self._period_s
            )
            last_answer_at = now


def accuracy(
    application: Application, images: LabelledImages, tally: Tally, *, version: str
) -> float:
    """Classify every image and return the share of right answers.

    Raises:
        DemoError: another release than ``version`` answered.
    """
    right = 0
    ways = cycle(WAYS)
    for index in range(len(images)):
        answer = application.classify(images.inputs[index : index + 1], *next(ways))
        tally.answered(answer)
        if answer.version != version:
            raise DemoError(f"release {answer.version} answered where {version} was to be measured")
        right += answer.label == int(images.labels[index])
    return right / len(images)
