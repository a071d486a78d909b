"""The signer: the only process that opens the assignment key.

It signs nothing but well-formed assignments whose version is higher than any that it signed for the
device, which it remembers in a database of its own. So whoever takes over the API can assign
published releases, and can neither sign anything else nor wind a device back.

It runs as ``python -m fleet_server.assignments.signer --data DIR``, started by the server, and ends
when its standard input closes, which is when the server dies, however it dies.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sqlite3
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from fleet_protocol import assignments, delivery, names
from fleet_protocol.errors import ProtocolError, SkerryError
from fleet_protocol.manifest import MANIFEST_FILE
from fleet_server.assignments import signing
from fleet_server.assignments.signing import SignAnswer, SignBatch, SignRequest
from fleet_server.clock import Clock, utc_now
from fleet_server.data_dir import DataDir
from fleet_server.errors import MalformedError, RefusedError, SetupError
from fleet_server.logs import configure as configure_logs
from fleet_server.releases.online_roles import load_signer

logger = logging.getLogger(__name__)

MAX_LIFETIME = timedelta(days=31)
MAX_STEP = 10_000
"""A version further ahead would let one request use up a device's numbers."""

_IDLE_TIMEOUT_S = 60.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS signed (
    device_id TEXT PRIMARY KEY,
    version INTEGER NOT NULL
) STRICT, WITHOUT ROWID
"""


class VersionNotHigherError(RefusedError):
    """A version was asked for that is not the next.

    Attributes:
        highest: the highest signed version of each device of the batch.
    """

    def __init__(self, message: str, *, highest: dict[str, int]) -> None:
        super().__init__(message)
        self.highest = highest


class AssignmentSigner:
    """Checks, remembers, signs. Blocks; one batch at a time."""

    def __init__(self, *, signer: Signer, database: sqlite3.Connection, clock: Clock) -> None:
        self._signer = signer
        self._database = database
        self._clock = clock

    @classmethod
    def open(cls, data: DataDir, clock: Clock) -> "AssignmentSigner":
        """Open key and database.

        Raises:
            SetupError: the key is not the one of the director's root, or a file cannot be read.
        """
        roots = sorted(data.director.glob("*.root.json"), key=_root_version)
        if not roots:
            raise SetupError(f"there is no root metadata in {data.director}")
        try:
            root = Metadata[Root].from_bytes(roots[-1].read_bytes()).signed
            database = sqlite3.connect(data.signer / "signed.db", isolation_level=None)
            for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", _SCHEMA):
                database.execute(statement)
        except (OSError, RepositoryError, sqlite3.Error) as error:
            raise SetupError(f"the signer cannot start on {data.signer}: {error}") from error
        signer = load_signer(data.signer / "assignment.pem", root, Targets.type)
        return cls(signer=signer, database=database, clock=clock)

    def sign(self, batch: SignBatch) -> list[str]:
        """Sign a batch; the versions are on disk before the first signature exists.

        Raises:
            RefusedError: a request is not a proper assignment, or its version is not higher.
            sqlite3.Error: the database failed; nothing was signed.
        """
        for request in batch.requests:
            self._check(request)
        self._remember(batch.requests)
        return [self._document(request) for request in batch.requests]

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _check(self, request: SignRequest) -> None:
        if request.run_nothing != (not request.targets):
            raise RefusedError("an assignment is empty exactly when it says `run_nothing`")
        families = set()
        for target in request.targets:
            try:
                family, _, file = names.parse_target_path(target.path)
            except ProtocolError as error:
                raise RefusedError(str(error)) from error
            if file != MANIFEST_FILE:
                raise RefusedError(f"an assignment lists manifests, not {target.path}")
            if family in families:
                raise RefusedError(f"the assignment lists {family} twice")
            families.add(family)
        try:
            delivery.check_families(request.terms, families)
        except ProtocolError as error:
            raise RefusedError(str(error)) from error
        now = self._clock()
        if not now < datetime.fromtimestamp(request.expires_s, UTC) <= now + MAX_LIFETIME:
            raise RefusedError(f"an assignment may live for {MAX_LIFETIME.days} days at most")

    def _remember(self, requests: list[SignRequest]) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            highest = {request.device_id: self._highest(request.device_id) for request in requests}
            self._database.executemany(
                "INSERT INTO signed VALUES (?, ?) "
                "ON CONFLICT (device_id) DO UPDATE SET version = excluded.version",
                list(_raised(highest, requests).items()),
            )
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:  # SQLite rolls back itself when the disk is full
                self._database.execute("ROLLBACK")
            raise

    def _highest(self, device_id: str) -> int:
        row = self._database.execute(
            "SELECT version FROM signed WHERE device_id = ?", (device_id,)
        ).fetchone()
        return int(row[0]) if row else 0

    def _document(self, request: SignRequest) -> str:
        targets = {
            target.path: TargetFile(target.length, {"sha256": target.sha256}, target.path)
            for target in request.targets
        }
        binding = assignments.Binding(device_id=request.device_id, run_nothing=request.run_nothing)
        metadata = Metadata(
            Targets(
                version=request.version,
                expires=datetime.fromtimestamp(request.expires_s, UTC),
                targets=targets,
                unrecognized_fields={
                    **assignments.extra_fields(binding),
                    **delivery.extra_fields(request.terms),
                },
            )
        )
        metadata.sign(self._signer)
        return metadata.to_bytes().decode()


class SignerServer:
    """Answers on the socket."""

    def __init__(self, signer: AssignmentSigner) -> None:
        self._signer = signer
        self._turn = asyncio.Lock()

    async def serve(self, path: Path, stop: asyncio.Event) -> None:
        """Listen on a Unix socket that only this user may open, until told to stop."""
        await asyncio.to_thread(path.unlink, missing_ok=True)
        mask = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(self._converse, path)
        finally:
            os.umask(mask)
        async with server:
            logger.info("signer_ready", extra={"socket": str(path)})
            await stop.wait()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(_IDLE_TIMEOUT_S):
                    batch = await signing.receive(reader, SignBatch)
                await signing.send(writer, await self._answer(batch))
        except MalformedError as error:
            logger.warning("signer_request_malformed", extra={"reason": str(error)})
            with contextlib.suppress(OSError):
                await signing.send(writer, SignAnswer(refusal=str(error)))
        except (EOFError, OSError, TimeoutError):
            pass  # the client is done
        finally:
            writer.close()

    async def _answer(self, batch: SignBatch) -> SignAnswer:
        async with self._turn:
            try:
                return SignAnswer(documents=self._signer.sign(batch))
            except VersionNotHigherError as error:
                return SignAnswer(refusal=str(error), highest=error.highest)
            except RefusedError as error:
                logger.warning("signer_refused", extra={"reason": str(error)})
                return SignAnswer(refusal=str(error))
            except sqlite3.Error as error:
                logger.error("signer_database_failed", extra={"reason": str(error)})  # noqa: TRY400
                return SignAnswer(unavailable=f"its database failed: {error}")


def _raised(highest: dict[str, int], requests: list[SignRequest]) -> dict[str, int]:
    raised = dict(highest)
    for request in requests:
        before = raised[request.device_id]
        if not before < request.version <= before + MAX_STEP:
            raise VersionNotHigherError(
                f"version {request.version} of {request.device_id} does not follow {before}",
                highest=highest,
            )
        raised[request.device_id] = request.version
    return raised


def _root_version(path: Path) -> int:
    version = path.name.split(".")[0]
    return int(version) if version.isdecimal() else 0


async def _watch_stdin(stop: asyncio.Event) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    stop.set()


async def _run(data: DataDir) -> None:
    signer = AssignmentSigner.open(data, utc_now)
    stop = asyncio.Event()
    watch = asyncio.create_task(_watch_stdin(stop), name="stdin")
    try:
        await SignerServer(signer).serve(data.signer_socket, stop)
    finally:
        watch.cancel()
        signer.close()


def main() -> int:
    """Run the signer until standard input closes; returns the exit status."""
    parser = argparse.ArgumentParser(description="The signer of assignments; the server starts it.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--log-level", default="info")
    arguments = parser.parse_args()
    configure_logs(arguments.log_level)
    for number in (signal.SIGINT, signal.SIGTERM):  # the server decides when the signer ends
        signal.signal(number, signal.SIG_IGN)
    try:
        asyncio.run(_run(DataDir(arguments.data)))
    except SkerryError as error:
        logger.error("signer_failed", extra={"reason": str(error)})  # noqa: TRY400
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
