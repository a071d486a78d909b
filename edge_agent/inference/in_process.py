"""The runtime inside an application's own process: no socket, the same rules.

For an application that is written in Python and wants neither a second process nor a protocol. It
serves what the device has committed to, through the same data plane: scheduler, deadlines,
refusals, memory budget, swaps. What it does not do is count for the fleet's telemetry: the counters
belong to the runtime process of the device.
"""

import asyncio
import contextlib
import math
import os
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_agent import settings
from edge_agent.inference.backends import arrays, catalog
from edge_agent.inference.boot import read_active_set, serve_committed
from edge_agent.inference.data_plane import WHOLE_SET, DataPlane
from edge_agent.inference.errors import (
    AsleepError,
    InferenceError,
    RequestError,
    UnavailableError,
)
from edge_agent.inference.execution import Execution
from edge_agent.inference.execution_policy import policy_from
from edge_agent.inference.inference_request import InferenceRequest, checked_elements
from edge_agent.inference.metadata import placed_model_metadata
from edge_agent.inference.release_loader import ReleaseLoader
from edge_agent.inference.tensors import Tensor
from edge_agent.inference.tracing import start_tracing
from edge_agent.inference.v2_messages import PlacedModelMetadata
from edge_agent.runtime_api import ActiveRelease
from edge_agent.settings import RuntimeSettings
from edge_agent.state_dir import StateDir, StateDirError
from fleet_protocol import bytes_tensor
from fleet_protocol.manifest import Datatype

if TYPE_CHECKING:
    from concurrent.futures import Future

Array = NDArray[np.generic]
_Result = TypeVar("_Result")

_DATATYPES = {dtype: datatype for datatype, dtype in arrays.DTYPES.items()}
_STOP_S = 10.0


class InProcessRuntime:
    """Serves the committed models of a state directory to this process; any thread may call it.

    ONNX Runtime's own log is turned off, for sessions of the caller as well that do not choose a
    level themselves: what is wrong with a model comes as an error.
    """

    def __init__(self, state: Path | str, *, runtime: RuntimeSettings | None = None) -> None:
        """Load what the device has committed to; what cannot be loaded says so when it is called.

        Args:
            state: the state directory, of which ``active.json`` and the blobs are read.
            runtime: settings; None for those of the state directory and the environment.

        Raises:
            StateDirError: there is no such directory.
            SettingsError: the settings are wrong.
        """
        self._state = StateDir(Path(state).absolute())
        if not self._state.root.is_dir():
            raise StateDirError(f"there is no state directory {self._state.root}")
        self._pid = os.getpid()
        chosen = runtime or settings.load_runtime(self._state.root, os.environ)
        self._gate = threading.Lock()
        """Held while work is handed to the loop: none is any more once this is closed."""
        self._closing = threading.Lock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="skerry-runtime", daemon=True
        )
        self._thread.start()
        self._plane = self._wait(self._start(chosen))
        self._execution = Execution(self._plane, regions=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def ready(self) -> bool:
        """True while everything that the device has committed to is served."""
        return self._plane.ready

    @property
    def models(self) -> list[str]:
        """The families that are served, in order of their names."""
        return self._plane.families

    def metadata(self, model: str) -> PlacedModelMetadata:
        """Return what a model takes and gives, and which of its variants runs where and why.

        Raises:
            InferenceError: it is not served.
        """
        return self._wait(self._metadata(model))

    def infer(  # noqa: PLR0913 (what a request may say)
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        version: str = "",
        outputs: Sequence[str] | None = None,
        timeout_s: float = 0.0,
        priority: int = 0,
    ) -> dict[str, Array]:
        """Return a model's outputs by name; they are read-only.

        Args:
            model: the family.
            inputs: arrays of exactly the datatypes that the model takes; strings for BYTES. Nobody
                may change them before this returns.
            version: the one that must answer; empty for the active one.
            outputs: those that are wanted; None for all.
            timeout_s: a call that cannot be answered within it is refused; 0 for no limit.
            priority: 1 is first, 100 is usual; 0 for the usual one.

        Raises:
            RequestError: the inputs are not what the model takes.
            UnknownModelError: there is no such model or version.
            RefusedError: it was not run: the queue is full, a model that slept finds no room beside
                those in use, or `DeadlineError`.
            UnavailableError: the model is assigned but could not be loaded, or this is closed.
            BackendError: the library failed.
        """
        if not 0 <= timeout_s < math.inf or not 0 <= priority < 1 << 32:
            raise RequestError(
                f"timeout_s is {timeout_s} and priority {priority}: a number of seconds from 0, "
                "and an integer from 0"
            )
        started = time.perf_counter()
        request = InferenceRequest(
            id="",
            inputs=[_tensor(name, array) for name, array in inputs.items()],
            outputs=None if outputs is None else dict.fromkeys(outputs, True),
            binary_output=True,
            timeout_us=math.ceil(timeout_s * 1e6),
            priority=priority,
        )
        found = self._wait(self._infer(model, version, request, started))
        return {tensor.name: _read_only(tensor) for tensor in found}

    def refresh(self) -> None:
        """Serve what the device has committed to meanwhile; calls under way are not disturbed.

        Raises:
            InferenceError: a release cannot be loaded; what was served before in its place goes on,
                and everything else is as it shall be.
            AgentError: ``active.json`` cannot be read.
        """
        self._wait(self._refresh())

    def close(self) -> None:
        """Answer what is under way, then let go of all models; a second time does nothing."""
        if os.getpid() != self._pid:
            return
        with self._closing:
            if self._closed:
                return
            with self._gate:
                self._closed = True
                ending = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
            ending.result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._give_up_what_is_left()
            self._loop.close()

    def _give_up_what_is_left(self) -> None:
        """Let go of those who still wait: a model did not come back, or was being loaded again."""
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(task)

    def _wait(self, work: Coroutine[object, object, _Result]) -> _Result:
        if os.getpid() != self._pid:
            work.close()
            raise UnavailableError(
                "this process was forked from the one that made this runtime, and has none of its "
                "threads: make one here, after the fork"
            )
        with self._gate:
            if self._closed:
                work.close()
                raise UnavailableError("this runtime has been closed")
            future: Future[_Result] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise UnavailableError("this runtime was closed before it could answer") from None
        except BaseException:
            # Ctrl-C while waiting: the call leaves the queue as that of any caller that goes.
            future.cancel()
            raise

    async def _start(self, chosen: RuntimeSettings) -> DataPlane:
        workers = max(1, (os.cpu_count() or 1) // chosen.threads)
        edge_tpu = Path(chosen.edgetpu_library) if chosen.edgetpu_library else None
        plane = DataPlane(
            loader=ReleaseLoader(
                state=self._state,
                epoch="",
                catalog=catalog.installed(threads=chosen.threads, edgetpu_library=edge_tpu),
                clock=time.perf_counter,
            ),
            clock=time.perf_counter,
            workers=workers,
            policy=policy_from(chosen, workers=workers),
        )
        await serve_committed(plane, self._state.active_set)
        plane.traces = await start_tracing(chosen.otlp_endpoint, clock=time.perf_counter)
        return plane

    async def _end(self) -> None:
        await self._plane.close(_STOP_S)
        if self._plane.traces is not None:
            await asyncio.to_thread(self._plane.traces.close)
        await self._loop.shutdown_default_executor()

    async def _metadata(self, model: str) -> PlacedModelMetadata:
        return placed_model_metadata(self._plane.described(model))

    async def _infer(
        self, model: str, version: str, request: InferenceRequest, started: float
    ) -> list[Tensor]:
        try:
            served = self._plane.active(model, version or None)
        except AsleepError:
            await self._plane.awake(model)
            served = self._plane.active(model, version or None)
        call = self._plane.begin(served, started=started, counted=True)
        answer = self._execution.answer(call, lambda: request, _wanted)
        return answer if isinstance(answer, list) else await answer

    async def _refresh(self) -> None:
        plane = self._plane
        committed = await asyncio.to_thread(read_active_set, self._state.active_set)
        plane.failed.pop(WHOLE_SET, None)
        problems: list[InferenceError] = []
        for release in committed.releases:
            try:
                await self._replace(release)
            except InferenceError as error:
                plane.failed[release.family] = str(error)
                problems.append(error)
        for family in {*plane.families, *plane.failed} - {one.family for one in committed.releases}:
            await plane.unload_family(family)
        if problems:
            raise problems[0]

    async def _replace(self, release: ActiveRelease) -> None:
        """Let a release answer for its family, unless it does so already; it may go on sleeping."""
        plane, family = self._plane, release.family
        if family not in plane.families or plane.described(family).release != release:
            await plane.load(release)
        plane.activate(family, release.version)
        for version in plane.versions(family):
            if version != release.version:
                await plane.unload(family, version)


def _tensor(name: str, array: Array) -> Tensor:
    """Return an array as a tensor over the same memory, if it lies there in order.

    Raises:
        RequestError: its datatype does not travel.
    """
    given = np.asarray(array)
    if given.dtype.kind in "OSU":
        elements = (_text(name, element) for element in given.ravel().tolist())
        return checked_elements(
            Tensor(
                name=name,
                datatype=Datatype.BYTES,
                shape=list(given.shape),
                data=bytes_tensor.pack(elements),
            )
        )
    datatype = _DATATYPES.get(given.dtype.newbyteorder("<"))
    if datatype is None:
        raise RequestError(
            f"input {name!r} is an array of {given.dtype}; known are "
            f"{', '.join(str(dtype) for dtype in _DATATYPES)} and strings"
        )
    ordered = np.ascontiguousarray(given, arrays.DTYPES[datatype]).reshape(given.shape)
    return arrays.to_tensor(name, datatype, ordered)


def _text(name: str, element: object) -> bytes:
    if isinstance(element, bytes):
        return element
    if isinstance(element, str):
        try:
            return element.encode()
        except UnicodeEncodeError as error:
            raise RequestError(
                f"input {name!r} holds a string that is not UTF-8: {error}"
            ) from error
    raise RequestError(f"input {name!r} holds {type(element).__name__} where strings are wanted")


def _wanted(
    request: InferenceRequest, _release: ActiveRelease, outputs: Sequence[Tensor]
) -> list[Tensor]:
    return list(request.wanted(outputs))


def _read_only(tensor: Tensor) -> Array:
    # A kept answer may be given to somebody else too.
    array = arrays.to_array(tensor)
    array.flags.writeable = False
    return array
