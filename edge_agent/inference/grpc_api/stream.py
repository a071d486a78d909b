"""ModelStreamInfer: requests in, answers out in the same order, several of them in work at once.

One task reads requests and begins them, another writes the answers. A queue between them bounds
what is in work: while it is full nothing is read, and gRPC's flow control holds the caller back.
"""

import asyncio
from collections.abc import Awaitable, Callable

from edge_agent.inference.errors import UnavailableError
from edge_agent.inference.grpc_api.calls import Context, refuse

MAX_IN_WORK = 16
"""Requests of one stream; more of them would only wait for the model in our memory."""

_Answer = bytes | asyncio.Future[bytes]


class InferStream:
    """One stream."""

    def __init__(
        self, context: Context, answer: Callable[[bytes], bytes | Awaitable[bytes]]
    ) -> None:
        """Begin to read; needs a running event loop.

        Args:
            context: the call.
            answer: answers a request, at once or later, and raises nothing.
        """
        self._context = context
        self._answer = answer
        self._answers: asyncio.Queue[_Answer | None] = asyncio.Queue(MAX_IN_WORK)
        self._stopping = False
        self._reader = asyncio.get_running_loop().create_task(self._read())

    def end(self) -> None:
        """Take no further request; those in work are answered before the stream ends."""
        self._stopping = True
        self._reader.cancel()

    async def run(self) -> None:
        """Write the answers until the caller has sent its last request."""
        try:
            while (answer := await self._answers.get()) is not None:
                await self._context.write(answer if isinstance(answer, bytes) else await answer)
        finally:
            self._reader.cancel()
            self._forget_answers()
            await asyncio.gather(self._reader, return_exceptions=True)
        if self._stopping:
            await refuse(self._context, UnavailableError("the runtime is stopping"))

    async def _read(self) -> None:
        try:
            # After the last request it is grpc.aio.EOF.
            while isinstance(payload := await self._context.read(), bytes):
                answer = self._answer(payload)
                await self._answers.put(
                    answer if isinstance(answer, bytes) else asyncio.ensure_future(answer)
                )
        finally:
            await self._answers.put(None)

    def _forget_answers(self) -> None:
        """Withdraw what is still in work when the caller has gone."""
        while not self._answers.empty():
            answer = self._answers.get_nowait()
            if isinstance(answer, asyncio.Future):
                answer.cancel()
