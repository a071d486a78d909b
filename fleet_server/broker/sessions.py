"""Ends sessions at a broker beside the server, by taking them over.

Whoever connects with a client id ends the session that has it: every broker has to
(MQTT 3.1.1, [MQTT-3.1.4-2]). Asking is blocking work of some milliseconds.
"""

import time
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from fleet_server.errors import UnavailableError

_TIMEOUT_S = 5.0


def end(control: Path, device_id: str) -> None:
    """End a device's session, if it has one, and forget what was kept for it.

    Args:
        control: the socket of a listener that asks for no name and allows nothing else.
        device_id: the client id of the session.

    Raises:
        UnavailableError: the broker does not take the connection.
    """
    answers: list[str | None] = []
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2,
        client_id=device_id,
        clean_session=True,
        transport="unix",
        reconnect_on_failure=False,
    )
    client.on_connect = lambda _client, _data, _flags, code, _properties: answers.append(
        str(code) if code.is_failure else None
    )
    try:
        client.connect(str(control), 1)
        deadline = time.monotonic() + _TIMEOUT_S
        while not answers and time.monotonic() < deadline:
            if client.loop(0.2) is not MQTTErrorCode.MQTT_ERR_SUCCESS:
                break
        client.disconnect()
    except OSError as error:
        raise UnavailableError(f"cannot reach the broker by {control}: {error}") from error
    refusal = answers[0] if answers else "no answer"
    if refusal is not None:
        raise UnavailableError(f"the broker ends no sessions by {control}: {refusal}")
