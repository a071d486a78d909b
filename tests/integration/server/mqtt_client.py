"""A paho client that waits for what the broker says."""

import contextlib
import queue
import ssl
import threading
import time
from pathlib import Path
from typing import Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from fleet_protocol import messages
from fleet_protocol.messages import Presence

TIMEOUT_S = 10.0
OFFLINE = messages.encode(Presence(online=False))


class Client:
    """One connection attempt, or one connection."""

    def __init__(  # noqa: PLR0913 (what a connection has)
        self,
        *,
        port: int,
        ca: Path,
        files: tuple[Path, Path] | None,
        client_id: str,
        clean: bool = True,
        will: tuple[str, bool] | None = None,
        keepalive: int = 30,
        protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311,
    ) -> None:
        self.messages: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
        self.granted: queue.Queue[list[int]] = queue.Queue()
        self.code: int | None = None
        self._decided = threading.Event()
        self._lost = threading.Event()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=clean if protocol is MQTTProtocolVersion.MQTTv311 else None,
            protocol=protocol,
            reconnect_on_failure=False,
        )
        context = ssl.create_default_context(cafile=ca)
        if files is not None:
            context.load_cert_chain(*files)
        self._client.tls_set_context(context)
        if will is not None:
            self._client.will_set(will[0], OFFLINE, qos=1, retain=will[1])
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_message = lambda _client, _data, message: self.messages.put(message)
        self._client.on_subscribe = lambda _client, _data, _mid, codes, _properties: (
            self.granted.put([code.value for code in codes])
        )
        try:
            self._client.connect("localhost", port, keepalive)
        except (ssl.SSLError, OSError):
            self._decided.set()
            self._lost.set()
        else:
            self._client.loop_start()
        self._decided.wait(TIMEOUT_S)

    @property
    def accepted(self) -> bool:
        return self.code == 0

    def _connected(
        self, _client: object, _data: object, _flags: object, code: ReasonCode, _properties: object
    ) -> None:
        self.code = code.value
        self._decided.set()

    def _disconnected(self, *_arguments: object) -> None:
        self._decided.set()
        self._lost.set()

    def subscribe(self, topic: str) -> bool:
        self._client.subscribe(topic, qos=1)
        return self.granted.get(timeout=TIMEOUT_S)[0] < 0x80

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> bool:
        """Say whether the broker acknowledged it."""
        info = self._client.publish(topic, payload, qos=qos, retain=retain)
        deadline = time.monotonic() + TIMEOUT_S
        with contextlib.suppress(RuntimeError, ValueError):
            while not self._lost.is_set() and time.monotonic() < deadline:
                info.wait_for_publish(0.05)
                if info.is_published():
                    return True
        return False

    def next_message(self) -> mqtt.MQTTMessage:
        return self.messages.get(timeout=TIMEOUT_S)

    def was_cut(self) -> bool:
        return self._lost.wait(TIMEOUT_S)

    @property
    def connected(self) -> bool:
        return self._client.is_connected()

    def break_off(self) -> None:
        """Lose the connection without a word, as a power cut does."""
        connection = self._client.socket()
        assert connection is not None
        self._client.loop_stop()
        connection.close()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
