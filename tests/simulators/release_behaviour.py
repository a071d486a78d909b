"""How a release behaves on which device; it is written in the model's file itself.

So nothing but the release tells a simulated device what becomes of it, and a device that never
fetches the release cannot be hurt by it.
"""

import hashlib
from enum import StrEnum

import msgspec

_SIZE_BYTES = 20_000


class Fate(StrEnum):
    """What a release does to one device."""

    SERVES = "serves"
    REFUSED = "refused"
    """The runtime cannot load it."""
    WRONG = "wrong"
    """Its golden answers are wrong."""
    ERRS = "errs"
    """It passes the trial, then calls fail."""
    STOPS = "stops"
    """Once it serves, the machine stops, and starts again later."""
    HANGS = "hangs"
    """Once it serves, the device says nothing more, while its connection stays."""


_FAILURES = (Fate.REFUSED, Fate.WRONG, Fate.ERRS)
_SILENCES = (Fate.STOPS, Fate.HANGS)


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """What a release does to a fleet.

    Attributes:
        version: of the release, so that no two files are the same.
        failing: share of the devices on which it fails, each in one of three ways.
        silent: share of the others which it silences, each in one of two ways.
        silence_s: how long they are silent.
        latency: factor on the latency of calls, everywhere.
    """

    version: str
    failing: float = 0.0
    silent: float = 0.0
    silence_s: float = 0.0
    latency: float = 1.0

    def fate(self, device_id: str) -> Fate:
        """Return what becomes of a device; the same at each try."""
        digest = hashlib.sha256(f"{self.version}/{device_id}".encode()).digest()
        drawn, kind = int.from_bytes(digest[:8]) / 2**64, digest[8]
        if drawn < self.failing:
            return _FAILURES[kind % len(_FAILURES)]
        if drawn < self.failing + (1 - self.failing) * self.silent:
            return _SILENCES[kind % len(_SILENCES)]
        return Fate.SERVES


def encode(behaviour: Behaviour) -> bytes:
    """Return the model's file."""
    return msgspec.json.encode(behaviour).ljust(_SIZE_BYTES)


def decode(model: bytes) -> Behaviour:
    """Read a model's file."""
    return msgspec.json.decode(model, type=Behaviour)
