"""The signer: the only process that opens the assignment key.

It signs nothing but well-formed assignments, and the commands of `fleet_server.commands.signer`. It
remembers in a database of its own what it signed:

1. the version is higher than any that this key signed for the device (no winding back);
2. the list has every family that the last one had, less those named as removed (nothing is left
   out by omission);
3. the device is known: at its first assignment the claim token is shown with which it enrolled, and
   the offline claim key signed that (no devices out of thin air).

So whoever takes over the API can assign published releases to invited devices, and nothing else.
When the director's root names another key, the signer goes on with that one, if it holds it, and
counts versions anew, as devices do.

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
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, TargetFile, Targets

from fleet_protocol import assignments, delivery, names
from fleet_protocol.errors import ProtocolError, SkerryError
from fleet_protocol.manifest import MANIFEST_FILE
from fleet_server import settings, tuf_files
from fleet_server.assignments import signing
from fleet_server.assignments.director import Director
from fleet_server.assignments.signing import SignAnswer, SignBatch, SignRequest
from fleet_server.clock import Clock, utc_now
from fleet_server.commands.signer import CommandSigner, SequenceNotHigherError
from fleet_server.data_dir import DataDir
from fleet_server.devices.tokens import ClaimVerifier
from fleet_server.errors import MalformedError, NotAuthenticatedError, RefusedError, SetupError
from fleet_server.logs import configure as configure_logs
from fleet_server.online_keys import OnlineKeys
from signing_keys.errors import SigningKeyError

logger = logging.getLogger(__name__)

MAX_LIFETIME = timedelta(days=31)
MAX_STEP = 10_000
"""A version further ahead would let one request use up a device's numbers."""

_IDLE_TIMEOUT_S = 60.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS devices (
    device_id TEXT PRIMARY KEY,
    keyid TEXT NOT NULL,
    version INTEGER NOT NULL,
    families TEXT NOT NULL
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
    """Checks, remembers, signs. Blocks; one batch at a time.

    Attributes:
        commands: signs commands with the same key and database.
    """

    def __init__(
        self,
        *,
        director: Path,
        keys: OnlineKeys,
        claims: ClaimVerifier,
        database: sqlite3.Connection,
        clock: Clock,
    ) -> None:
        """Take the folder of the director's roots and what is signed with.

        Raises:
            SetupError: no key here is the one of the director's newest root.
        """
        self._director = director
        self._keys = keys
        self._claims = claims
        self._database = database
        self._clock = clock
        self._root_version, self._signer = self._chosen()
        self._take_over()
        self.commands = CommandSigner(
            database=database, signer=self._newest, claims=claims, clock=clock
        )

    @classmethod
    def open(
        cls, data: DataDir, clock: Clock, *, keys: OnlineKeys | None = None
    ) -> "AssignmentSigner":
        """Open key and database.

        Raises:
            SetupError: the key is not the one of the director's root, or a file cannot be read.
        """
        try:
            database = sqlite3.connect(data.signer / "signed.db", isolation_level=None)
            for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", _SCHEMA):
                database.execute(statement)
        except sqlite3.Error as error:
            raise SetupError(f"the signer cannot start on {data.signer}: {error}") from error
        return cls(
            director=data.director,
            keys=keys or OnlineKeys("assignment", data.signer),
            claims=ClaimVerifier.load(data.online / "claim.pub.pem"),
            database=database,
            clock=clock,
        )

    def sign(self, batch: SignBatch) -> list[str]:
        """Sign a batch; the versions are on disk before the first signature exists.

        Raises:
            RefusedError: a request is not a proper assignment, or its version is not higher.
            SetupError: the director's newest root names a key that is not here.
            sqlite3.Error: the database failed; nothing was signed.
        """
        self._newest()
        for request in batch.requests:
            self._check(request)
        self._remember(batch.requests)
        return [self._document(request) for request in batch.requests]

    def keyids(self) -> list[str]:
        """Return the ids of all keys here, in use or waiting for a root that names them."""
        return self._keys.keyids()

    def _take_over(self) -> None:
        """Take the versions over that the first form of the database remembered."""
        tables = self._database.execute("SELECT name FROM sqlite_schema WHERE name = 'signed'")
        if tables.fetchone() is not None:
            self._database.execute(
                "INSERT OR IGNORE INTO devices SELECT device_id, ?, version, '' FROM signed",
                (self._signer.public_key.keyid,),
            )

    def _newest(self) -> Signer:
        """Return what signs under the director's newest root."""
        if self._root_version != tuf_files.versions(self._director)[-1]:
            self._root_version, self._signer = self._chosen()
        return self._signer

    def _chosen(self) -> tuple[int, Signer]:
        root = Director(self._director).root
        return root.version, self._keys.signer_for(root, Targets.type)

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
            known = {request.device_id: self._known(request) for request in requests}
            self._database.executemany(
                "INSERT INTO devices VALUES (?, ?, ?, ?) ON CONFLICT (device_id) DO UPDATE SET "
                "keyid = excluded.keyid, version = excluded.version, families = excluded.families",
                [
                    (
                        device_id,
                        self._signer.public_key.keyid,
                        last.version,
                        " ".join(last.families),
                    )
                    for device_id, last in _raised(known, requests).items()
                ],
            )
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:  # SQLite rolls back itself when the disk is full
                self._database.execute("ROLLBACK")
            raise

    def _known(self, request: SignRequest) -> "_Last":
        """Return what was signed last for a device.

        Raises:
            RefusedError: nothing was, and its claim does not show that it was invited.
        """
        row = self._database.execute(
            "SELECT keyid, version, families FROM devices WHERE device_id = ?", (request.device_id,)
        ).fetchone()
        if row is not None:
            same_key = row[0] == self._signer.public_key.keyid
            return _Last(int(row[1]), 0 if not same_key else int(row[1]), frozenset(row[2].split()))
        try:
            invited = self._claims.invited(request.claim)
        except NotAuthenticatedError as error:
            raise RefusedError(
                f"the device {request.device_id} is unknown, and nothing shows that it was "
                f"invited: {error}"
            ) from error
        if invited != request.device_id:
            raise RefusedError(f"the claim of {request.device_id} is one of {invited}")
        return _Last(0, 0, frozenset())

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
                return self._signed(batch)
            except (VersionNotHigherError, SequenceNotHigherError) as error:
                return SignAnswer(refusal=str(error), highest=error.highest)
            except RefusedError as error:
                logger.warning("signer_refused", extra={"reason": str(error)})
                return SignAnswer(refusal=str(error))
            except sqlite3.Error as error:
                logger.error("signer_database_failed", extra={"reason": str(error)})  # noqa: TRY400 (expected, and said in one sentence)
                return SignAnswer(unavailable=f"its database failed: {error}")
            except (SetupError, SigningKeyError, UnsignedMetadataError) as error:
                logger.error("signer_key_failed", extra={"reason": str(error)})  # noqa: TRY400 (expected, and said in one sentence)
                return SignAnswer(unavailable=f"its key cannot be used: {error}")

    def _signed(self, batch: SignBatch) -> SignAnswer:
        if batch.commands:
            return SignAnswer(documents=self._signer.commands.sign(batch.commands))
        if batch.requests:
            return SignAnswer(documents=self._signer.sign(batch))
        return SignAnswer(keyids=self._signer.keyids())


@dataclass(frozen=True, slots=True)
class _Last:
    """What was signed last for a device.

    Attributes:
        above: what the next version must be higher than; 0 with a key that is new.
    """

    version: int
    above: int
    families: frozenset[str]


def _raised(known: dict[str, _Last], requests: list[SignRequest]) -> dict[str, _Last]:
    raised = dict(known)
    for request in requests:
        before = raised[request.device_id]
        if not before.above < request.version <= before.version + MAX_STEP:
            raise VersionNotHigherError(
                f"version {request.version} of {request.device_id} does not follow {before.above}",
                highest={device_id: last.above for device_id, last in known.items()},
            )
        families = frozenset(names.parse_target_path(target.path)[0] for target in request.targets)
        missing = before.families - families - set(request.removed)
        if missing:
            raise RefusedError(
                f"the assignment of {request.device_id} is incomplete: it leaves out "
                f"{', '.join(sorted(missing))}"
            )
        raised[request.device_id] = _Last(request.version, request.version, families)
    return raised


async def _watch_stdin(stop: asyncio.Event) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    stop.set()


async def _run(data: DataDir) -> None:
    config = settings.load(data.settings_file, os.environ)
    signer = AssignmentSigner.open(data, utc_now, keys=settings.assignment_keys(config, data))
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
        logger.error("signer_failed", extra={"reason": str(error)})  # noqa: TRY400 (expected, and said in one sentence)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
