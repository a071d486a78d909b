"""How much memory a process takes at most, from now on (proc(5)).

``ru_maxrss`` would not do: a child inherits it from the process that started it.
"""

from pathlib import Path

_RESET_PEAK = "5"


class PeakMemory:
    """Starts to watch when it is made."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
        self._before_kib = _kib("VmRSS")

    def grown_bytes(self) -> int:
        """Return the peak since the start, above what was held then."""
        return max(0, _kib("VmHWM") - self._before_kib) * 1024


def _kib(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0])
    raise SystemExit(f"the kernel does not say {field}")
