"""The command `bench`: how fast the releases that serve run on their golden inputs.

The runtime times them itself, beside live calls and at low priority, as in the contest between
variants (`edge_agent.control.contest`).
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

from edge_agent.control.commands import at_risk
from edge_agent.control.commands.runner import CommandRefusedError, Done
from edge_agent.control.database import Database
from edge_agent.control.install import read_manifest, variant_of
from edge_agent.control.install_rule import InstallRefusedError
from edge_agent.control.journal import Committed, Journal
from edge_agent.control.runtime_client import (
    Runtime,
    RuntimeRefusedError,
    RuntimeUnavailableError,
)
from edge_agent.runtime_api import LoadedRelease
from edge_agent.store import StoreError
from fleet_protocol.command_answers import MAX_LISTED, MAX_SAID, BenchResult, BenchRow
from fleet_protocol.commands import Action, Bench, Command

_PROBLEMS = (InstallRefusedError, RuntimeRefusedError, RuntimeUnavailableError, StoreError)
_VECTORS = 4


class BenchAction:
    """Carries the command out."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        blob: Callable[[str], Path],
        database: Database,
        journal: Journal,
    ) -> None:
        self._runtime = runtime
        self._blob = blob
        self._database = database
        self._journal = journal

    async def __call__(self, action: Action, _command: Command) -> Done:
        """Time what serves.

        Raises:
            CommandRefusedError: an update is being judged, or there is nothing to time.
            RuntimeUnavailableError: the runtime does not answer.
        """
        family = action.family if isinstance(action, Bench) else None
        await at_risk.check_none(self._database, self._journal, "a bench")
        committed = await self._database.transact(self._journal.committed)
        status = await asyncio.to_thread(self._runtime.status)
        serving = [
            release
            for release in status.releases
            if release.active and family in {None, release.family}
        ]
        if not serving:
            raise CommandRefusedError(
                f"nothing of {family} serves here" if family else "nothing serves here"
            )
        rows = [
            await asyncio.to_thread(self._row, release, committed.get(release.family))
            for release in serving[:MAX_LISTED]
        ]
        timed = sum(row.fastest_ms is not None for row in rows)
        return Done(f"{timed} of {len(rows)} releases were timed", BenchResult(rows=rows))

    def _row(self, release: LoadedRelease, committed: Committed | None) -> BenchRow:
        fastest_ms, problem = None, ""
        try:
            fastest_ms = self._fastest_ms(release, committed)
        except _PROBLEMS as error:
            problem = str(error)[:MAX_SAID]
        return BenchRow(
            family=release.family,
            version=release.version,
            variant=release.variant,
            backend=release.backend,
            accelerator=release.accelerator,
            fastest_ms=fastest_ms,
            choice=release.choice[:MAX_SAID],
            problem=problem,
        )

    def _fastest_ms(self, release: LoadedRelease, committed: Committed | None) -> float:
        if committed is None or committed.release.version != release.version:
            raise InstallRefusedError(
                "the release is not committed, so its manifest is not at hand"
            )
        manifest = read_manifest(self._blob(committed.manifest.sha256))
        vectors = variant_of(manifest, committed.release).golden.vectors[:_VECTORS]
        if not vectors:
            raise InstallRefusedError("its manifest has no golden inputs")
        races = [
            self._runtime.race(release.family, [release.version], vector.inputs)
            for vector in vectors
        ]
        return round(fmean(race[release.version] for race in races) * 1000, 4)
