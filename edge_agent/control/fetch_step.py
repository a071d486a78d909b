"""The downloading step: fetches a release and says in the journal how that ended.

Three kinds of failure. The world is not ready (no server or something else that answers in its
place, metadata not fresh, a full disk): the step is repeated for as long as it takes, with pauses
that outlast a restart. The attempt is spoilt (wrong bytes, the repository does not agree yet): it
counts, three of them and the update has failed. The release may not run here: it has failed at
once.
"""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable
from functools import partial

from edge_agent.control import choices
from edge_agent.control.clock import TrustedClock
from edge_agent.control.database import Database
from edge_agent.control.download import Course
from edge_agent.control.install import Installer, Order
from edge_agent.control.install_rule import DisagreementError, InstallRefusedError
from edge_agent.control.journal import (
    MAX_ATTEMPTS,
    Candidate,
    Journal,
    UpdateRecord,
    files_needed,
)
from edge_agent.control.ledger import Ledger, StaleRecordError
from edge_agent.control.observation import Observation, placements_seen
from edge_agent.control.partial_file import CancelledDownloadError, DownloadError
from edge_agent.control.pauses import Cause, Pauses, cause_of
from edge_agent.control.refusals import Refusals
from edge_agent.control.server_client import (
    ServerRefusedError,
    ServerTooSlowError,
    ServerUnreachableError,
    UnfitAnswerError,
)
from edge_agent.control.trust import TrustError
from edge_agent.control.withdrawn import Withdrawn
from edge_agent.runtime_api import Placement
from edge_agent.store import StoreError
from fleet_protocol.update_states import UpdateState
from fleet_protocol.withdrawals import Withdrawals

logger = logging.getLogger(__name__)

_NOT_READY = (ServerUnreachableError, ServerRefusedError, StoreError)


class FetchStep:
    """Runs the installer for a record in `DOWNLOADING`."""

    def __init__(  # noqa: PLR0913 (its parts, by keyword)
        self,
        *,
        installer: Installer,
        ledger: Ledger,
        database: Database,
        journal: Journal,
        trusted_clock: TrustedClock,
        observation: Observation,
        pauses: Pauses,
        fingerprint: Callable[[], str],
        refusals: Refusals,
        withdrawn: Withdrawn,
    ) -> None:
        self._installer = installer
        self._ledger = ledger
        self._database = database
        self._journal = journal
        self._trusted_clock = trusted_clock
        self._observation = observation
        self._pauses = pauses
        self._fingerprint = fingerprint
        self._refusals = refusals
        self._withdrawn = withdrawn

    async def run(self, record: UpdateRecord, cancelled: threading.Event) -> None:
        """Fetch a record's release; every outcome but a withdrawn order is in the journal."""
        try:
            await self._attempt(record, cancelled)
        except (CancelledDownloadError, StaleRecordError):
            logger.info("download_withdrawn", extra=_fields(record))
        except StoreError as error:
            self._pauses.failed(record.family, cause_of(error))
            self._observation.note(record.family, str(error))
            logger.error("journal_not_written", extra={**_fields(record), "reason": str(error)})  # noqa: TRY400 (a full disk needs no traceback)
        except Exception:
            self._pauses.failed(record.family)
            raise

    async def _attempt(self, record: UpdateRecord, cancelled: threading.Event) -> None:
        placements = tuple(placements_seen(self._observation.situation))
        if not any(not found.problem for found in placements):
            waiting = "waiting for the runtime, which knows the backends"
            await self._not_ready(record, waiting, Cause.LOCAL)
            return
        refused: list[str] = []
        loop = asyncio.get_running_loop()

        def learned(said: Withdrawals) -> None:
            # At once: what is learnt in the course of a long download is newer than this.
            coming = self._withdrawn.learn(record.family, said)
            asyncio.run_coroutine_threadsafe(coming, loop).result()

        try:
            order = await self._order(
                record, placements, cancelled, refused=refused.append, learned=learned
            )
            try:
                candidate = await asyncio.to_thread(self._installer.fetch, order)
            finally:
                for reason in refused:
                    await self._tell(record, reason)
        except DisagreementError as error:
            await self._spoilt(record, str(error))
        except InstallRefusedError as error:
            await self._failed(record, str(error))
        except DownloadError as error:
            await self._tell(record, str(error))
            await self._spoilt(record, str(error))
        except (TrustError, ServerTooSlowError, UnfitAnswerError) as error:
            await self._tell(record, str(error))
            await self._not_ready(record, str(error), Cause.SHARED)
        except _NOT_READY as error:
            await self._not_ready(record, str(error), cause_of(error))
        else:
            await self._verified(record, candidate, order)

    async def _tell(self, record: UpdateRecord, reason: str) -> None:
        await self._refusals.tell(reason, family=record.family, version=record.version)

    async def _order(
        self,
        record: UpdateRecord,
        placements: tuple[Placement, ...],
        cancelled: threading.Event,
        *,
        refused: Callable[[str], None],
        learned: Callable[[Withdrawals], None],
    ) -> Order:
        fingerprint = await asyncio.to_thread(self._fingerprint)

        def read(connection: sqlite3.Connection) -> Order:
            all_committed = self._journal.committed(connection)
            committed = all_committed.get(record.family)
            same = committed is not None and committed.release.version == record.version
            return Order(
                family=record.family,
                version=record.version,
                manifest=record.manifest,
                floor=self._journal.floor(connection, record.family),
                held=committed.manifest if committed is not None and same else None,
                placements=placements,
                hardware=fingerprint,
                remembered=choices.load(connection),
                now=self._trusted_clock.now(connection),
                course=Course(
                    cancelled=cancelled.is_set,
                    limit=partial(self._observation.rate_limit, record.family),
                    refused=refused,
                ),
                base=None if committed is None else committed.release,
                keep=files_needed(all_committed, self._journal.records(connection)),
                learned=learned,
            )

        return await self._database.transact(read)

    async def _verified(self, record: UpdateRecord, candidate: Candidate, order: Order) -> None:
        await self._ledger.move(record, UpdateState.VERIFIED, candidate=candidate)
        await self._refusals.over()
        self._pauses.succeeded(record.family)

        def write(connection: sqlite3.Connection) -> None:
            # The repository's metadata was fresh then: time may not fall behind that any more.
            self._trusted_clock.trust(connection, order.now)
            self._pauses.keep(connection)

        await self._database.transact(write)
        logger.info("release_verified", extra=_fields(record))

    async def _not_ready(self, record: UpdateRecord, reason: str, cause: Cause) -> None:
        self._pauses.failed(record.family, cause)
        logger.info("download_waits", extra={**_fields(record), "reason": reason})
        await self._ledger.amend(record, also=self._pauses.keep, detail=reason[:1000])

    async def _spoilt(self, record: UpdateRecord, reason: str) -> None:
        attempts = record.attempts + 1
        if attempts >= MAX_ATTEMPTS:
            await self._failed(record, f"{reason} ({attempts} attempts)")
            return
        self._pauses.failed(record.family, Cause.SHARED)
        logger.warning("download_spoilt", extra={**_fields(record), "reason": reason})
        await self._ledger.amend(
            record, also=self._pauses.keep, attempts=attempts, detail=reason[:1000]
        )

    async def _failed(self, record: UpdateRecord, reason: str) -> None:
        logger.warning("release_refused", extra={**_fields(record), "reason": reason})
        await self._ledger.move(record, UpdateState.FAILED, detail=reason[:4000], retry=False)


def _fields(record: UpdateRecord) -> dict[str, str]:
    return {"family": record.family, "version": record.version}
