"""How much of the machine others used meanwhile: a figure from a busy machine should say so."""

import os
import resource
import time
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_IDLE, _IOWAIT = 3, 4
_COUNTED = 8
"""The fields of /proc/stat after these are contained in earlier ones (proc_stat(5))."""


class OtherLoad:
    """Counts from its creation on; the processes started meanwhile must have ended at its end."""

    def __init__(self) -> None:
        """Begin."""
        self._since = time.monotonic()
        self._busy_s = _machine_busy_s()
        self._own_s = _own_s()

    def cores(self) -> float:
        """Return how many cores all others kept busy on average."""
        others_s = (_machine_busy_s() - self._busy_s) - (_own_s() - self._own_s)
        return max(0.0, others_s / (time.monotonic() - self._since))


def _machine_busy_s() -> float:
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1 : 1 + _COUNTED]
    ticks = [int(field) for field in fields]
    return (sum(ticks) - ticks[_IDLE] - ticks[_IOWAIT]) / _TICKS_PER_S


def _own_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
