"""Repairs the damaged file of a committed release: the same bytes again, whatever else goes on.

What is committed serves until another release is committed. So its file is fetched anew while
another release is assigned, tried or refused, after the assignment has expired, and even if its
publisher has withdrawn it since: all that can come of a repair are the bytes that were verified at
the commit, and the journal has their hash.

A runtime that began to live with rotten bytes may still compute with them. Its golden answers tell;
if they are wrong it loads the release anew from the whole file.
"""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable
from functools import partial

from edge_agent.control.blob_audit import BlobAudit
from edge_agent.control.database import Database
from edge_agent.control.download import BlobStore, Course
from edge_agent.control.golden import GoldenCheckError
from edge_agent.control.install import read_manifest, variant_of
from edge_agent.control.install_rule import InstallRefusedError
from edge_agent.control.journal import Journal, files_needed
from edge_agent.control.observation import Observation
from edge_agent.control.partial_file import CancelledDownloadError, DownloadError
from edge_agent.control.pauses import Pauses, cause_of
from edge_agent.control.reconcile import Repair
from edge_agent.control.refusals import Refusals
from edge_agent.control.runtime_client import (
    Runtime,
    RuntimeRefusedError,
    RuntimeUnavailableError,
)
from edge_agent.control.server_client import (
    ServerRefusedError,
    ServerTooSlowError,
    ServerUnreachableError,
)
from edge_agent.control.trial import Trial
from edge_agent.errors import AgentError
from edge_agent.store import StoreError
from fleet_protocol.names import target_path

logger = logging.getLogger(__name__)

_FAILURES = (
    DownloadError,
    InstallRefusedError,
    ServerRefusedError,
    ServerUnreachableError,
    StoreError,
)
_NOT_CHECKED = (RuntimeUnavailableError, RuntimeRefusedError, InstallRefusedError, StoreError)
_REFUSED = (DownloadError, ServerTooSlowError)


def resting_name(family: str) -> str:
    """Return under which name repairs of a family rest."""
    return f"{family} repair"


class RepairStep:
    """Runs repairs; what failed is tried again, with pauses, for as long as it takes."""

    def __init__(  # noqa: PLR0913 (its parts, by keyword)
        self,
        *,
        blobs: BlobStore,
        audit: BlobAudit,
        trial: Trial,
        runtime: Runtime,
        database: Database,
        journal: Journal,
        observation: Observation,
        pauses: Pauses,
        refusals: Refusals,
    ) -> None:
        self._blobs = blobs
        self._audit = audit
        self._trial = trial
        self._runtime = runtime
        self._database = database
        self._journal = journal
        self._observation = observation
        self._pauses = pauses
        self._refusals = refusals

    async def run(self, job: Repair, cancelled: threading.Event) -> None:
        """Fetch a file anew; how that ended is seen at the next look."""
        try:
            keep = await self._database.transact(self._needed)
            await asyncio.to_thread(self._fetch, job, keep, cancelled.is_set)
        except CancelledDownloadError:
            return
        except _FAILURES as error:
            self._audit.not_repaired(job.release.sha256, str(error)[:500])
            self._pauses.failed(resting_name(job.family), cause_of(error))
            logger.warning("repair_waits", extra={"family": job.family, "reason": str(error)})
            if isinstance(error, _REFUSED):
                await self._tell(job, error)
            return
        self._audit.repaired(job.release.sha256)
        self._pauses.succeeded(resting_name(job.family))
        logger.info("blob_repaired", extra={"family": job.family, "version": job.release.version})
        await asyncio.to_thread(self._check_what_serves, job)

    def _fetch(self, job: Repair, keep: frozenset[str], cancelled: Callable[[], bool]) -> None:
        release, ref = job.release, job.manifest
        course = Course(
            cancelled=cancelled, limit=partial(self._observation.rate_limit, job.family)
        )
        blob = self._blobs.fetch(ref.path, length=ref.length, sha256=ref.sha256, course=course)
        manifest = read_manifest(blob)
        variant = variant_of(manifest, release)
        self._blobs.make_room({variant.sha256: variant.length}, keep=keep, anew=True)
        path = target_path(release.family, release.version, variant.file)
        self._blobs.fetch(path, length=variant.length, sha256=variant.sha256, course=course)

    def _needed(self, connection: sqlite3.Connection) -> frozenset[str]:
        return files_needed(self._journal.committed(connection), self._journal.records(connection))

    async def _tell(self, job: Repair, error: AgentError) -> None:
        try:
            await self._refusals.tell(str(error), family=job.family, version=job.release.version)
        except StoreError as refused:
            logger.warning("refusal_not_noted", extra={"reason": str(refused)})

    def _check_what_serves(self, job: Repair) -> None:
        """Take a release out of service whose answers are wrong; the next look serves it anew."""
        try:
            serving = {
                (loaded.family, loaded.version)
                for loaded in self._runtime.status().releases
                if loaded.active
            }
            if (job.family, job.release.version) not in serving:
                return
            try:
                self._trial.answers(job.release, job.manifest.sha256)
            except (GoldenCheckError, RuntimeRefusedError) as error:
                self._rotten(job, str(error))
        except _NOT_CHECKED as error:
            logger.warning("repair_not_checked", extra={"family": job.family, "reason": str(error)})

    def _rotten(self, job: Repair, reason: str) -> None:
        logger.error("rotten_model_served", extra={"family": job.family, "reason": reason})
        self._runtime.stop_family(job.family)
