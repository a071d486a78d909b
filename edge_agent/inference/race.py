"""Times loaded releases against each other: in turns, in this process, out of everybody's way.

Measured from another process, a call's way through a socket hides differences below a third of a
millisecond. Here it is the bare model that is timed, in a thread of its own with low priority,
past scheduler, counters and statistics: live calls neither wait for it nor are changed by it. Who
wins is decided by control.
"""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from edge_agent.inference.inference_request import InferenceRequest
from edge_agent.inference.served_release import Clock, ServedRelease
from edge_agent.priority import let_others_go_first

_NICE = 10
_ROUNDS = 40
_CALLS_PER_TURN = 3
"""The first one finds the caches as the model before it left them."""
_LONG_S = 0.02
"""After such a call the caches say nothing any more, and one call makes a turn."""
_ENOUGH_S = 3.0


class Races:
    """Runs one race at a time. Belongs to the event loop."""

    def __init__(self, *, clock: Clock, going: Callable[[], bool]) -> None:
        """Run none yet.

        Args:
            clock: times the runs, in seconds.
            going: False ends a race after the run that is under way.
        """
        self._clock = clock
        self._going = going
        self._one_at_a_time = asyncio.Lock()

    async def run(
        self, entrants: Sequence[ServedRelease], request: InferenceRequest
    ) -> dict[str, float]:
        """Return the shortest run of each release in seconds, by version.

        Lasts about 3 s, or as long as it takes until each has run once. The shortest run counts:
        what made another one longer was the machine and not the model.

        Args:
            entrants: of one family.
            request: what all of them are run on.

        Raises:
            RequestError: it is not what they take.
            BackendError: a library failed.
        """
        runs = {
            served.release.version: partial(served.compute, served.feed(request))
            for served in entrants
        }
        async with self._one_at_a_time:
            # A thread keeps its low priority, so it is not one that others use afterwards.
            thread = ThreadPoolExecutor(
                1, "race", initializer=partial(let_others_go_first, nice=_NICE)
            )
            racing = asyncio.get_running_loop().run_in_executor(thread, self._race, runs)
            thread.shutdown(wait=False)
            for served in entrants:
                served.run_began()
            racing.add_done_callback(lambda _: _let_go(entrants))
            # Whoever gives up waiting does not take the models from under the thread.
            return await asyncio.shield(racing)

    def _race(self, runs: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        shortest = dict.fromkeys(runs, math.inf)
        began = self._clock()
        for _ in range(_ROUNDS):
            for version, run in runs.items():
                for _ in range(_CALLS_PER_TURN):
                    before = self._clock()
                    run()
                    took = self._clock() - before
                    shortest[version] = min(shortest[version], took)
                    if took > _LONG_S:
                        break
            if self._clock() - began > _ENOUGH_S or not self._going():
                break
        return shortest


def _let_go(entrants: Sequence[ServedRelease]) -> None:
    for served in entrants:
        served.run_ended()
