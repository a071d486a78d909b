"""An inference call from the request's bytes to the answer's, whatever protocol carries them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from edge_agent.inference.classification import ranked
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.errors import RequestError
from edge_agent.inference.inference_call import Call
from edge_agent.inference.inference_request import InferenceRequest
from edge_agent.inference.request_memory import RequestMemory
from edge_agent.inference.shared_memory import INLINE_BYTES, Regions
from edge_agent.inference.tensors import Tensor
from edge_agent.runtime_api import ActiveRelease

_Answer = TypeVar("_Answer")
Encode = Callable[[InferenceRequest, ActiveRelease, Sequence[Tensor]], _Answer]
"""Makes the answer of a request from the release that it ran on and the outputs as it wants them.

It may be called in a thread.
"""


class Execution:
    """Runs calls on the models of a data plane."""

    def __init__(
        self, plane: DataPlane, *, regions: Regions | None, memory: RequestMemory | None = None
    ) -> None:
        """Work on a data plane.

        Args:
            plane: runs the calls.
            regions: of shared memory; None where it is not enabled.
            memory: from which copies of shared memory are taken that wait for their turn; None for
                any amount.
        """
        self._plane = plane
        self._regions = regions
        self._memory = memory or RequestMemory()
        self.shared_memory = regions is not None
        """Whether tensors may lie in shared memory."""

    def answer(
        self, call: Call, decode: Callable[[], InferenceRequest], encode: Encode[_Answer]
    ) -> _Answer | Awaitable[_Answer]:
        """Run a call to its end, at once or later.

        Args:
            call: which has begun, and ends here.
            decode: reads the request.
            encode: see there.

        Raises:
            AgentError: what is wrong with the request, or went wrong.
        """
        with call:
            query = decode()
            if query.shared_outputs and self._regions is not None:
                self._regions.check_room(query.shared_outputs, call.release.least_output_bytes)
            if query.shared_inputs and self._regions is not None:
                if query.shared_bytes > INLINE_BYTES:
                    call.defer()
                    return self._from_large_regions(query, call, encode, self._regions)
                query = self._regions.filled(query)
            feed = call.feed(query)
            if call.runs_inline(feed):
                return self._encoded(query, call, encode, call.run(feed))
            if query.shared_bytes:
                self._memory.reserve(query.shared_bytes)
            call.defer()
        return self._later(query, call, encode, feed)

    async def _from_large_regions(
        self, query: InferenceRequest, call: Call, encode: Encode[_Answer], regions: Regions
    ) -> _Answer:
        with call:
            self._memory.reserve(query.shared_bytes)
            try:
                query = await asyncio.to_thread(regions.filled, query)
                feed = call.feed(query)
            except BaseException:
                self._memory.give_back(query.shared_bytes)
                raise
            call.defer()
        return await self._later(query, call, encode, feed)

    async def _later(
        self, query: InferenceRequest, call: Call, encode: Encode[_Answer], feed: list[Tensor]
    ) -> _Answer:
        """Run a call for whose copies of shared memory there is room."""
        try:
            with call:
                outputs = await self._plane.run_in_thread(call, feed)
                if sum(place.byte_size for place in query.shared_outputs.values()) > INLINE_BYTES:
                    return await asyncio.to_thread(self._encoded, query, call, encode, outputs)
                return self._encoded(query, call, encode, outputs)
        finally:
            self._memory.give_back(query.shared_bytes)

    def _encoded(
        self,
        query: InferenceRequest,
        call: Call,
        encode: Encode[_Answer],
        outputs: Sequence[Tensor],
    ) -> _Answer:
        release = call.release.release
        if query.classes or query.shared_outputs:
            outputs = self._finished(query, release, outputs)
        return encode(query, release, outputs)

    def _finished(
        self, query: InferenceRequest, release: ActiveRelease, outputs: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return the outputs as the request wants them, after storing those for shared memory."""
        finished = list(outputs)
        if query.classes:
            specs = {spec.name: spec for spec in release.outputs}
            finished = [
                ranked(output, specs[output.name], query.classes[output.name])
                if output.name in query.classes
                else output
                for output in outputs
            ]
        if query.shared_outputs:
            if self._regions is None:
                raise RequestError(
                    "shared memory is not enabled here (setting runtime.shared_memory)"
                )
            self._regions.store(query, finished)
        return finished
