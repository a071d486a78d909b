"""A campaign of updates under random I/O faults: batches side by side, each a device of its own.

Each batch that ended is a line of JSON in the log of the campaign, so one that was stopped goes on
with the batches that are missing.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.simulators import child_process

BATCH = 50
_MEMORY = Path("/dev/shm")  # noqa: S108 (a folder of our own in it)


@dataclass
class Campaign:
    """What was asked for, and what has come of it.

    Attributes:
        updates: to be made, in batches.
        seed: of the first batch; each next one has the next number.
        log: finished batches, as lines of JSON.
        say: takes a line about the progress.
    """

    updates: int
    seed: int
    log: Path
    say: Callable[[str], object]
    batches: dict[int, dict[str, Any]] = field(default_factory=dict)
    began_s: float = field(default_factory=time.monotonic)

    def run(self, *, workers: int) -> None:
        """Make the batches that the log does not have yet.

        Raises:
            AssertionError: a batch came to no end; the message has its seed and what it said.
        """
        sizes = dict(enumerate(_sizes(self.updates), start=self.seed))
        self.batches = {seed: batch for seed, batch in self._logged() if seed in sizes}
        if self.batches:
            self.say(f"{self.total('updates')} updates are in {self.log} already")
        before = self.total("updates")
        with ThreadPoolExecutor(workers) as threads, self.log.open("a") as log:
            missing = [seed for seed in sizes if seed not in self.batches]
            jobs = {threads.submit(_batch, seed, sizes[seed]): seed for seed in missing}
            for job in as_completed(jobs):
                self.batches[jobs[job]] = job.result()
                log.write(json.dumps({"seed": jobs[job], **job.result()}) + "\n")
                log.flush()
                self._tell(since=before)

    def total(self, name: str) -> int:
        """Return the sum of a count over all batches."""
        return sum(batch[name] for batch in self.batches.values())

    @property
    def states(self) -> dict[str, int]:
        """In which states the updates were when the faults ended."""
        counted: dict[str, int] = {}
        for batch in self.batches.values():
            for state, count in batch["states"].items():
                counted[state] = counted.get(state, 0) + count
        return counted

    @property
    def wrong(self) -> list[str]:
        """What was wrong, with the seed that shows it."""
        return [
            f"seed {seed}, {what}"
            for seed, batch in sorted(self.batches.items())
            for what in batch["wrong"]
        ]

    def _tell(self, *, since: int) -> None:
        done = self.total("updates")
        rate = (done - since) / (time.monotonic() - self.began_s)
        self.say(
            f"{done} of {self.updates} updates, {rate:.1f} a second; "
            f"{self.total('failed_steps')} steps failed, {self.total('restarts')} restarts, "
            f"{self.total('loads')} loads, {len(self.wrong)} wrong; when the faults ended: "
            f"{', '.join(f'{count} {state}' for state, count in sorted(self.states.items()))}"
        )

    def _logged(self) -> Iterator[tuple[int, dict[str, Any]]]:
        if self.log.exists():
            for line in self.log.read_text().splitlines():
                batch = json.loads(line)
                yield batch.pop("seed"), batch


def _sizes(updates: int) -> list[int]:
    whole, rest = divmod(updates, BATCH)
    return [BATCH] * whole + [rest] * bool(rest)


def _batch(seed: int, updates: int) -> dict[str, Any]:
    """Run a device in a process with libfiu, in memory where there is such a disk."""
    memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    folder = tempfile.mkdtemp(prefix="skerry-faults-", dir=memory)
    try:
        command = child_process.command("tests.faults.control.faulty_device", folder, updates, seed)
        ended = subprocess.run(
            ["fiu-run", "-x", *command],  # noqa: S607 (Debian's)
            capture_output=True,
            text=True,
            check=False,
            cwd=child_process.ROOT,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert ended.returncode == 0, f"seed {seed}: {ended.stderr[-3000:]}"
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found
