"""A throw-away PostgreSQL server for tests: a socket in a private folder, nothing synced to disk.

It runs as an unprivileged user and ends with the tests, however they end. Names sort as a person
would sort them (ICU), as in most databases that a company already has, and not as bytes.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from fleet_server import migrate
from tests.simulators.emptied_database import Original

_TEMPLATE = "skerry_template"
_DEADLINE_S = 30.0
_FAST = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "autovacuum=off",
    "shared_buffers=32MB",
    "max_connections=200",
    "log_line_prefix=%a ",
    "log_statement=mod",
)


class Cluster:
    """One server; each test has a database to itself, as the migrations leave it."""

    def __init__(self, *settings: str, folder: Path | None = None) -> None:
        """Make the folder.

        Args:
            settings: ``name=value`` instead of what suits tests.
            folder: where the data stay, to be found there the next time; else a temporary one.
        """
        self._stays = folder is not None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="skerry-pg-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._settings = (*_FAST, *settings)
        self._made = 0
        self._original: Original | None = None
        self._lent: set[str] = set()
        self._free: list[str] = []

    @property
    def log(self) -> Path:
        """What the server says; each line starts with the name of the application."""
        return self.folder / "server.log"

    def url(self, database: str) -> str:
        """Return the address of a database."""
        return f"postgresql://skerry:not-needed@/{database}?host={self.folder}"

    def start(self) -> "Cluster":
        """Make the cluster and start the server."""
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        data = str(self.folder / "data")
        if not (self.folder / "data" / "PG_VERSION").exists():
            self._as_user(
                "initdb -U skerry -A trust -E UTF8 --no-sync --locale=C.UTF-8 "
                f"--locale-provider=icu --icu-locale=en-US -D {data}".split()
            ).wait(_DEADLINE_S)
        options = [part for setting in self._settings for part in ("-c", setting)]
        self._process = self._as_user(
            ["postgres", "-D", data, "-k", str(self.folder), "-c", "listen_addresses=", *options]
        )
        self._await_ready(self._process.pid)
        return self

    def stop(self) -> None:
        """Stop the server and remove everything, or leave the data in good order."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT if self._stays else signal.SIGKILL)
            self._process.wait(_DEADLINE_S)
        if not self._stays:
            shutil.rmtree(self.folder, ignore_errors=True)

    async def create(self, *, migrated: bool = True) -> str:
        """Make a database, with the schema of this version or empty; returns its address."""
        if not migrated:
            return await self._copy("template0")
        if self._original is None:
            self._original = await self._make_template()
        url = self._free.pop() if self._free else await self._copy(_TEMPLATE)
        self._lent.add(url)
        return url

    async def drop(self, url: str) -> None:
        """Take a database back from whoever is connected to it."""
        if url in self._lent:
            self._lent.remove(url)
            if await self._emptied(url):
                self._free.append(url)
                return
        name = url.partition("@/")[2].partition("?")[0]
        await self._run(f"DROP DATABASE {name} WITH (FORCE)")

    async def _make_template(self) -> Original:
        await self._run(f"CREATE DATABASE {_TEMPLATE}")
        await migrate.upgrade(self.url(_TEMPLATE))
        async with self._connected(self.url(_TEMPLATE)) as connection:
            return await Original.of(connection)

    async def _copy(self, template: str) -> str:
        self._made += 1
        name = f"test_{self._made}"
        await self._run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return self.url(name)

    async def _emptied(self, url: str) -> bool:
        assert self._original is not None
        async with self._connected(url) as connection:
            return await self._original.restore(connection)

    async def _run(self, statement: str) -> None:
        async with self._connected(self.url("postgres")) as connection:
            await connection.execute(statement)

    @asynccontextmanager
    async def _connected(self, url: str) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(url)
        try:
            yield connection
        finally:
            await connection.close()

    def _await_ready(self, pid: int) -> None:
        status = self.folder / "data" / "postmaster.pid"  # its last line says so
        deadline = time.monotonic() + _DEADLINE_S
        while True:
            lines = status.read_text().split() if status.exists() else []
            if lines[:1] == [str(pid)] and lines[-1] == "ready":
                return
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def _as_user(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Run a program of PostgreSQL; it refuses to run as root, and ends with this process."""
        found = [shutil.which(command[0]), *Path("/usr/lib/postgresql").glob(f"*/bin/{command[0]}")]
        program = str(next(path for path in reversed(found) if path is not None))
        identity = (
            ["--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        )
        with self.log.open("ab") as log:
            return subprocess.Popen(
                ["setpriv", *identity, "--pdeathsig=INT", "--", program, *command[1:]],  # noqa: S607 (found on PATH)
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
