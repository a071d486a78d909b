"""What `skerry demo --check` reports, and which claims it rests on."""

import statistics

import msgspec

from skerry.demo.application import Tally

ACCURACY_WITHIN = 0.005
"""On-device accuracy may differ from the card's by half a point."""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Of all calls of all applications, JSON and binary, socket and TCP, in milliseconds."""

    p50: float
    p99: float


class Requests(msgspec.Struct, frozen=True, kw_only=True):
    """Images sent by the applications, and what the stored telemetry says of them."""

    sent: int
    failed: int
    retried: int
    counted: int
    longest_gap_s: float


class Windows(msgspec.Struct, frozen=True, kw_only=True):
    """Telemetry windows that the devices numbered and that the server stored."""

    sent: int
    stored: int
    stored_of_the_outage: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The one JSON line."""

    ok: bool
    claims: dict[str, bool]
    accuracy: dict[str, dict[str, float]]
    """Device, release, share of right answers on the demo images through the V2 API."""
    card_accuracy: dict[str, float]
    """Release, accuracy on all 10,000 test images as the model card has it."""
    latency_ms: Latency
    requests: Requests
    telemetry_windows: Windows
    refused: str
    """What the first device said of the wrong release."""
    server_outage_s: float
    restarts: dict[str, int]
    seconds: dict[str, float]

    def broken(self) -> list[str]:
        """Return the claims that did not hold."""
        return [claim for claim, held in self.claims.items() if not held]


def accuracy_holds(
    measured: dict[str, dict[str, float]], card: dict[str, float], *, devices: int
) -> bool:
    """Say whether every device was measured on every release and lies close to the card."""
    return len(measured) == devices and all(
        by_release.keys() == card.keys()
        and all(
            abs(value - card[release]) <= ACCURACY_WITHIN for release, value in by_release.items()
        )
        for by_release in measured.values()
    )


def latency_of(tallies: list[Tally]) -> Latency:
    """Return the percentiles over all calls."""
    every = [1000 * seconds for tally in tallies for seconds in tally.latencies_s]
    cuts = statistics.quantiles(every, n=100)
    return Latency(p50=round(cuts[49], 3), p99=round(cuts[98], 3))
