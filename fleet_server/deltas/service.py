"""Hands out deltas that are ready and has the others made, one after the other, in the background.

Nothing waits for a delta: a device that asks before one is ready takes the whole file. Deltas are
not signed, since the device checks what comes out of them. The folder is a cache: bounded, filled
on demand, and safe to remove.
"""

import asyncio
import logging
import os
import shutil
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fleet_server.errors import FleetError, NotFoundError

logger = logging.getLogger(__name__)

MAX_WAITING = 64
_TIMEOUT_S = 3600.0
_AFTER_FAILURE_S = 3600.0
_FREE_BYTES_KEPT = 256 * 1024 * 1024
_READ_BYTES = 4000
_LEAST_CHARGE_BYTES = 4096
"""What an empty file costs too, so that notes of what does not pay are bounded as well."""


class NotReadyError(FleetError):
    """The delta is not made yet; the whole file is there meanwhile."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two published files with their hashes."""

    base_sha256: str
    new_sha256: str
    base: Path
    new: Path

    @property
    def name(self) -> str:
        """The name of the delta in the cache."""
        return f"{self.base_sha256}-{self.new_sha256}.delta"


class Deltas:
    """One cache; the process that holds it is its only writer."""

    def __init__(
        self, *, folder: Path, max_bytes: int, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the folder and how much may lie in it; 0 turns deltas off."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self._waiting: dict[str, Pair] = {}
        self._failed_s: dict[str, float] = {}
        self._wanted = asyncio.Event()

    async def get(self, pair: Pair) -> Path:
        """Return the file of a delta that is ready; have it made if it is not.

        Raises:
            NotFoundError: there is none, since it would not be small enough.
            NotReadyError: it is being made, or will be.
        """
        path = self._folder / pair.name
        size = await asyncio.to_thread(_touched_size, path)
        if size:
            return path
        if size == 0 or not self._max_bytes:
            raise NotFoundError("a delta from that file would not pay; fetch the whole target")
        self.prepare(pair)
        raise NotReadyError("the delta is not made yet; fetch the whole target")

    def prepare(self, pair: Pair) -> None:
        """Have a delta made in good time; one too many is not taken note of."""
        rests = self._monotonic() < self._failed_s.get(pair.name, 0.0)
        if self._max_bytes and not rests and len(self._waiting) < MAX_WAITING:
            self._waiting.setdefault(pair.name, pair)
            self._wanted.set()

    async def run(self) -> None:
        """Make the wanted deltas until cancelled; nothing that happens to one ends it."""
        await asyncio.to_thread(self._tidy)
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._waiting:
                name, pair = next(iter(self._waiting.items()))
                try:
                    await self._make(pair)
                except OSError as error:
                    self._note_failure(pair, str(error))
                finally:
                    del self._waiting[name]

    async def _make(self, pair: Pair) -> None:
        out = self._folder / pair.name
        if await asyncio.to_thread(out.exists):
            return
        if not await asyncio.to_thread(self._has_room, pair.new):
            self._note_failure(pair, "the disk of the server has too little room")
            return
        command = [sys.executable, "-m", "fleet_server.deltas.worker"]
        process = await asyncio.create_subprocess_exec(
            *command, pair.base, pair.new, out, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE
        )
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                said = b"" if process.stderr is None else await process.stderr.read(_READ_BYTES)
                status = await process.wait()
        except TimeoutError:
            status, said = -1, b"it took too long"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            await asyncio.to_thread(out.with_suffix(".part").unlink, missing_ok=True)
        if status:
            self._note_failure(pair, said.decode(errors="replace").strip() or f"status {status}")
            return
        size = await asyncio.to_thread(lambda: out.stat().st_size)
        logger.info("delta_made", extra={"delta": pair.name, "size_bytes": size})
        await asyncio.to_thread(self._tidy)

    def _note_failure(self, pair: Pair, reason: str) -> None:
        logger.warning("delta_not_made", extra={"delta": pair.name, "reason": reason})
        if len(self._failed_s) >= MAX_WAITING:
            self._failed_s.pop(next(iter(self._failed_s)))
        self._failed_s[pair.name] = self._monotonic() + _AFTER_FAILURE_S

    def _has_room(self, new: Path) -> bool:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        return shutil.disk_usage(self._folder).free > new.stat().st_size + _FREE_BYTES_KEPT

    def _tidy(self) -> None:
        """Remove what was left half-made, and the deltas that were not asked for longest."""
        if not self._folder.is_dir():
            return
        for partial in self._folder.glob("*.part"):
            partial.unlink(missing_ok=True)
        found = [(path, path.stat()) for path in self._folder.glob("*.delta")]
        found.sort(key=lambda entry: entry[1].st_mtime_ns, reverse=True)
        used = 0
        for path, status in found:
            used += max(status.st_size, _LEAST_CHARGE_BYTES)
            if used > self._max_bytes:
                path.unlink(missing_ok=True)


def _touched_size(path: Path) -> int | None:
    """Return the size of a delta and note that it was asked for; None if there is none."""
    try:
        os.utime(path)
        return path.stat().st_size
    except FileNotFoundError:
        return None
