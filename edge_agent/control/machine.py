"""How the machine is, read from ``/proc`` and ``/sys``; what cannot be read is None."""

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fleet_protocol.messages import Capabilities, SystemWindow

_PROC = Path("/proc")
_THERMAL = Path("/sys/class/thermal")
_PLAUSIBLE_CELSIUS = (-60.0, 200.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How the machine is at a moment."""

    uptime_s: float | None
    load_1_min: float | None
    memory_total_bytes: int | None
    memory_available_bytes: int | None
    runtime_resident_bytes: int | None
    temperature_celsius: float | None


class Machine:
    """Measures the machine; CPU use is that since the call before."""

    def __init__(self, *, proc: Path = _PROC, thermal: Path = _THERMAL) -> None:
        self._proc = proc
        self._thermal = thermal
        self._cpu_before = self._cpu_ticks()

    def window(self, runtime_pid: int | None) -> SystemWindow:
        """Return the measurements of the window that ends now."""
        before, self._cpu_before = self._cpu_before, self._cpu_ticks()
        memory = self._memory()
        total, available = memory.get("MemTotal"), memory.get("MemAvailable")
        used = total - available if total is not None and available is not None else None
        return SystemWindow(
            cpu_percent=_busy_percent(before, self._cpu_before),
            memory_used_bytes=used,
            memory_total_bytes=total,
            runtime_resident_bytes=self._resident_bytes(runtime_pid),
            temperature_celsius=self._temperature(),
        )

    def snapshot(self, runtime_pid: int | None) -> Snapshot:
        """Return how the machine is now; the next window is not changed by it."""
        memory = self._memory()
        return Snapshot(
            uptime_s=self._first_number("uptime"),
            load_1_min=self._first_number("loadavg"),
            memory_total_bytes=memory.get("MemTotal"),
            memory_available_bytes=memory.get("MemAvailable"),
            runtime_resident_bytes=self._resident_bytes(runtime_pid),
            temperature_celsius=self._temperature(),
        )

    def available_memory(self) -> int | None:
        """Return how many bytes of memory can be had without swapping."""
        return self._memory().get("MemAvailable")

    def total_memory(self) -> int | None:
        """Return how many bytes of memory there are."""
        return self._memory().get("MemTotal")

    def capabilities(
        self, *, backends: dict[str, str], accelerators: Iterable[str]
    ) -> Capabilities:
        """Return what the device is and can run."""
        return Capabilities(
            machine=platform.machine(),
            cpu_count=os.cpu_count() or 1,
            memory_total_bytes=self.total_memory(),
            backends=backends,
            accelerators=list(accelerators),
        )

    def _cpu_ticks(self) -> tuple[int, int] | None:
        """Return (idle, total) ticks since boot over all cores (proc(5), /proc/stat)."""
        try:
            fields = (self._proc / "stat").read_text().split("\n", 1)[0].split()[1:]
            # guest and guest_nice are part of user and nice already
            ticks = [int(field) for field in fields[:8]]
            return ticks[3] + ticks[4], sum(ticks)
        except (OSError, ValueError, IndexError):
            return None

    def _first_number(self, file: str) -> float | None:
        try:
            return float((self._proc / file).read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None

    def _memory(self) -> dict[str, int]:
        try:
            lines = (self._proc / "meminfo").read_text().splitlines()
            pairs = (line.split()[:2] for line in lines if line.endswith("kB"))
            return {name.rstrip(":"): int(kib) * 1024 for name, kib in pairs}
        except (OSError, ValueError):
            return {}

    def _resident_bytes(self, pid: int | None) -> int | None:
        if pid is None:
            return None
        try:
            pages = int((self._proc / str(pid) / "statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return None
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _temperature(self) -> float | None:
        found = []
        for zone in self._thermal.glob("thermal_zone*/temp"):
            try:
                celsius = int(zone.read_text()) / 1000
            except (OSError, ValueError):
                continue
            if _PLAUSIBLE_CELSIUS[0] < celsius < _PLAUSIBLE_CELSIUS[1]:
                found.append(celsius)
        return max(found, default=None)


def _busy_percent(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    if before is None or after is None or after[1] <= before[1]:
        return None
    idle = (after[0] - before[0]) / (after[1] - before[1])
    return round(min(100.0, max(0.0, 100.0 * (1 - idle))), 2)
