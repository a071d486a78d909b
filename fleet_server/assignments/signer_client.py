"""Asks the signer process; the API never sees the key."""

import asyncio
from pathlib import Path

from fleet_server.assignments import signing
from fleet_server.assignments.signing import SignAnswer, SignBatch, SignRequest
from fleet_server.commands.signing import SignCommand
from fleet_server.errors import MalformedError, RefusedError, UnavailableError

_TIMEOUT_S = 30.0


class VersionTakenError(RefusedError):
    """The signer has signed higher versions than the database knows.

    Attributes:
        highest: the highest signed version of each device that was asked for.
    """

    def __init__(self, message: str, *, highest: dict[str, int]) -> None:
        super().__init__(message)
        self.highest = highest


class SignerClient:
    """One conversation per batch."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def sign(self, requests: list[SignRequest]) -> list[bytes]:
        """Have assignments signed, all or none.

        Returns:
            The signed documents in the order of the requests.

        Raises:
            UnavailableError: the signer does not answer, or cannot store what it signs.
            VersionTakenError: a version is not higher than what was signed before.
            RefusedError: the signer refuses the content.
        """
        return await self._signed(SignBatch(requests=requests), len(requests), "assigned")

    async def sign_commands(self, requests: list[SignCommand]) -> list[bytes]:
        """Have commands signed, all or none.

        Returns:
            The signed envelopes in the order of the requests.

        Raises:
            UnavailableError: the signer does not answer, or cannot store what it signs.
            VersionTakenError: a sequence is not higher than what was signed before.
            RefusedError: the signer refuses the content.
        """
        return await self._signed(
            SignBatch(requests=[], commands=requests), len(requests), "commanded"
        )

    async def keyids(self) -> list[str]:
        """Return the ids of the keys that the signer holds.

        Raises:
            UnavailableError: the signer does not answer.
        """
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return (await self._ask(SignBatch(requests=[]))).keyids
        except (OSError, EOFError, TimeoutError, MalformedError) as error:
            raise UnavailableError("the signer does not answer; try again") from error

    async def answers(self) -> bool:
        """Say whether the signer listens."""
        try:
            async with asyncio.timeout(1.0):
                _, writer = await asyncio.open_unix_connection(self._socket)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    async def _signed(self, batch: SignBatch, count: int, done: str) -> list[bytes]:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                answer = await self._ask(batch)
        except (OSError, EOFError, TimeoutError, MalformedError) as error:
            raise UnavailableError(
                f"the signer does not answer, so nothing was {done}; it is being restarted, "
                "try again"
            ) from error
        if answer.unavailable:
            raise UnavailableError(
                f"the signer cannot sign now, so nothing was {done}: {answer.unavailable}; "
                "look after the server's disk and try again",
                retry_after_s=60,
            )
        if answer.highest:
            raise VersionTakenError(answer.refusal, highest=answer.highest)
        if answer.refusal or len(answer.documents) != count:
            raise RefusedError(f"the signer refused: {answer.refusal or 'it signed too little'}")
        return [document.encode() for document in answer.documents]

    async def _ask(self, batch: SignBatch) -> SignAnswer:
        reader, writer = await asyncio.open_unix_connection(self._socket)
        try:
            await signing.send(writer, batch)
            return await signing.receive(reader, SignAnswer)
        finally:
            writer.close()
