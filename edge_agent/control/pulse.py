"""A counter that tasks of one event loop wait on: whoever changes something bumps it."""

import asyncio


class Pulse:
    """Wakes every waiter at each bump; a waiter that was busy sees that it missed one.

    Only for use on the event loop; another thread bumps with ``loop.call_soon_threadsafe``.
    """

    def __init__(self) -> None:
        self.count = 0
        self._waiters: set[asyncio.Future[None]] = set()

    def bump(self) -> None:
        """Count up and wake all who wait."""
        self.count += 1
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def changed(self, seen: int, *, timeout_s: float | None = None) -> int:
        """Return the count once it differs from ``seen``, or after a timeout as it then is."""
        if self.count == seen:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await asyncio.wait({waiter}, timeout=timeout_s)
            finally:
                self._waiters.discard(waiter)
                waiter.cancel()
        return self.count


async def first_change(*seen: tuple[Pulse, int], timeout_s: float | None = None) -> None:
    """Return when one of the pulses differs from the count seen of it, or after a timeout."""
    waits = {asyncio.ensure_future(pulse.changed(count)) for pulse, count in seen}
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
