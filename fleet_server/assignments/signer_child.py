"""Keeps the signer running as a child process."""

import asyncio
import contextlib
import logging
import sys
from asyncio.subprocess import PIPE, Process

from fleet_server.data_dir import DataDir

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_STEADY_S = 30.0
"""After this long a death counts as the first one again."""

_STOP_TIMEOUT_S = 5.0


class SignerChild:
    """Starts the signer, and starts it again when it dies, with growing pauses."""

    def __init__(self, *, data: DataDir, log_level: str) -> None:
        self._command = [
            sys.executable,
            "-m",
            "fleet_server.assignments.signer",
            "--data",
            str(data.root),
            "--log-level",
            log_level,
        ]

    async def run(self) -> None:
        """Supervise until cancelled; then the signer is stopped."""
        pause = _FIRST_PAUSE_S
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                process = await asyncio.create_subprocess_exec(*self._command, stdin=PIPE)
            except OSError as error:
                logger.error("signer_not_started", extra={"reason": str(error)})  # noqa: TRY400 (expected, and said in one sentence)
            else:
                await self._watch(process)
            if loop.time() - started > _STEADY_S:
                pause = _FIRST_PAUSE_S
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    async def _watch(self, process: Process) -> None:
        try:
            status = await process.wait()
            logger.error("signer_died", extra={"pid": process.pid, "status": status})
        finally:
            if process.returncode is None:
                if process.stdin is not None:
                    process.stdin.close()
                try:
                    async with asyncio.timeout(_STOP_TIMEOUT_S):
                        await process.wait()
                except TimeoutError:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()
