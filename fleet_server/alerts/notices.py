"""A notice as it travels: the CloudEvents 1.0 document and the Standard Webhooks signature. Pure.

Sources: CloudEvents 1.0.2, JSON event format and HTTP binding (structured mode); Standard Webhooks
1.0.0, "Signature scheme" and "Webhook headers".
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

CONTENT_TYPE = "application/cloudevents+json; charset=UTF-8"

FIRED = "skerry.alert.fired"
RESOLVED = "skerry.alert.resolved"
TEST = "skerry.alert.test"

_SECRET_PREFIX = "whsec_"  # noqa: S105 (what stands before each secret)
_SECRET_BYTES = 32


def new_event_id() -> str:
    """Return an id for an event; it has no full stop, which separates what is signed."""
    return f"msg_{secrets.token_hex(16)}"


def new_secret() -> str:
    """Return a secret, in the form in which it is given to the receiver."""
    return _SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def document(  # noqa: PLR0913 (the attributes of an event)
    *, event_id: str, kind: str, tenant: str, subject: str, at_ms: int, data: Mapping[str, object]
) -> str:
    """Return the body of a notice.

    Args:
        event_id: unique with the source.
        kind: one of this module's types.
        tenant: whose notice it is.
        subject: what it is about, such as ``devices/cam-01``.
        at_ms: when it happened.
        data: JSON object.
    """
    moment = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": f"/skerry/tenants/{tenant}",
            "type": kind,
            "subject": subject,
            "time": moment.replace("+00:00", "Z"),
            "datacontenttype": "application/json",
            "data": data,
        }
    ).decode()


def headers(*, event_id: str, at_s: int, body: bytes, whsec: Sequence[str]) -> dict[str, str]:
    """Return the headers that sign an attempt.

    Args:
        event_id: the same for every attempt.
        at_s: when the attempt is made, in seconds since 1970.
        body: exactly what is sent.
        whsec: secrets of the receiver, the present one first.
    """
    signed = f"{event_id}.{at_s}.".encode() + body
    signatures = (
        base64.b64encode(hmac.digest(_key(each), signed, hashlib.sha256)).decode() for each in whsec
    )
    return {
        "content-type": CONTENT_TYPE,
        "webhook-id": event_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(_SECRET_PREFIX))
