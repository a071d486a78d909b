"""The fleet's side of the outbox: stores each number once, acknowledges without gaps."""

from edge_agent.control.outbox import Kind, Message
from fleet_protocol.messages import Ack, Event, EventKind, TelemetryWindow, decode


class TelemetryServer:
    """Deduplicates by (stream, sequence) ranges, as the fleet server does.

    Attributes:
        windows: those stored, in the order of arrival.
    """

    def __init__(self) -> None:
        self.covered: dict[str, set[int]] = {}
        self.windows: list[TelemetryWindow] = []
        self.events = 0

    @property
    def requests(self) -> int:
        return sum(model.requests for window in self.windows for model in window.models)

    def receives(self, message: Message) -> None:
        content: TelemetryWindow | Event
        if message.kind is Kind.TELEMETRY:
            content = decode(message.payload, TelemetryWindow)
        else:
            content = decode(message.payload, Event)
        numbers = set(range(content.covers_from, content.sequence + 1))
        covered = self.covered.setdefault(content.stream, set())
        if numbers & covered and not numbers <= covered:
            raise AssertionError(f"{content.stream}: {sorted(numbers)} came in two shapes")
        if not numbers & covered:
            covered |= numbers
            if isinstance(content, TelemetryWindow):
                self.windows.append(content)
            elif content.kind is not EventKind.OUTBOX_DROPPED:
                self.events += 1

    def ack(self, stream: str) -> Ack:
        covered = self.covered.get(stream, set())
        contiguous = 0
        while contiguous + 1 in covered:
            contiguous += 1
        return Ack(stream=stream, sequence=contiguous)
