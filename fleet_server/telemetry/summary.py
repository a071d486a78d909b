"""Sums windows up: counts are added, histograms merged, quantiles read from the merged ones."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from fleet_protocol import histogram
from fleet_protocol.messages import ErrorKind, ModelWindow


@dataclass(slots=True)
class ReleaseSum:
    """What one release did, over any number of windows and devices."""

    family: str
    version: str
    requests: int = 0
    windows: int = 0
    errors: Counter[ErrorKind] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    variants: Counter[str] = field(default_factory=Counter)
    devices: set[str] = field(default_factory=set)
    _buckets: Counter[int] = field(default_factory=Counter)
    _total_us: float = 0.0

    def add(self, device_id: str, model: ModelWindow) -> None:
        """Add one window."""
        self.requests += model.requests
        self.windows += 1
        self.errors.update(model.errors)
        self.classes.update(model.classes)
        self.variants[model.variant] += model.requests
        self.devices.add(device_id)
        self._buckets.update(model.latency_us.buckets)
        self._total_us += model.latency_us.total

    @property
    def latency_us(self) -> histogram.Histogram:
        """The merged histogram."""
        return histogram.Histogram(buckets=dict(self._buckets), total=self._total_us)


class Summary:
    """Sums by family and version."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], ReleaseSum] = {}

    def add(self, windows: Iterable[tuple[str, ModelWindow]]) -> None:
        """Add windows with the devices that they come from."""
        for device_id, model in windows:
            key = (model.family, model.version)
            if key not in self._sums:
                self._sums[key] = ReleaseSum(*key)
            self._sums[key].add(device_id, model)

    @property
    def releases(self) -> list[ReleaseSum]:
        """The sums in the order of family and version."""
        return [self._sums[key] for key in sorted(self._sums)]
