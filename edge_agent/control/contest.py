"""The contest between variants: each beside the others in the runtime, timed in turns.

Each contender gets a version of its own in the runtime (`handle`), which no application can call
and which the reconciler unloads if this process dies meanwhile. Methods block their thread.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from edge_agent.control import golden
from edge_agent.control.install import read_manifest, variant_of
from edge_agent.control.runtime_client import Runtime
from edge_agent.errors import AgentError
from edge_agent.runtime_api import ActiveRelease
from fleet_protocol.manifest import Manifest

_HANDLE = "0.0.0-trial."
_VECTORS = 4
_CLEARLY = 0.95
"""A later contender has to need less than this share of the time of the one before it in the
publisher's order: within that, two measurements say nothing."""


class DoesNotFitError(AgentError):
    """There is no memory for one more contender beside the others."""


class Contest:
    """Loads contenders, checks and times them."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        blob: Callable[[str], Path],
        available_memory: Callable[[], int | None],
    ) -> None:
        self._runtime = runtime
        self._blob = blob
        self._available_memory = available_memory

    def epoch(self) -> str:
        """Return the epoch of the runtime.

        Raises:
            RuntimeUnavailableError: it does not answer.
        """
        return self._runtime.status().epoch

    def clear(self, family: str) -> None:
        """Unload what a contest of this family has left in the runtime.

        Raises:
            RuntimeUnavailableError, RuntimeRefusedError: the runtime cannot.
        """
        for loaded in self._runtime.status().releases:
            if loaded.family == family and loaded.version.startswith(_HANDLE):
                self._runtime.unload(family, loaded.version)

    def enter(self, contender: ActiveRelease, at: int, manifest_sha256: str) -> None:
        """Load a contender under the handle ``at`` and check its golden answers.

        Raises:
            DoesNotFitError: the memory does not reach.
            GoldenCheckError: it answers wrongly or too slowly.
            StoreError: the manifest cannot be read.
            RuntimeRefusedError: the runtime cannot load or run it.
            RuntimeUnavailableError: the runtime died or restarted on the way.
        """
        available = self._available_memory()
        if available is not None and contender.memory_bytes > available:
            raise DoesNotFitError(
                f"it takes {contender.memory_bytes} bytes of memory, {available} are available"
            )
        manifest = read_manifest(self._blob(manifest_sha256))
        self._runtime.load(msgspec.structs.replace(contender, version=handle(at)))
        golden.check(self._runtime, _under(manifest, at), variant_of(manifest, contender))

    def leave(self, family: str, at: int) -> None:
        """Unload the contender under a handle.

        Raises:
            RuntimeUnavailableError, RuntimeRefusedError: the runtime cannot.
        """
        self._runtime.unload(family, handle(at))

    def time(
        self, contenders: Sequence[tuple[int, ActiveRelease]], manifest_sha256: str
    ) -> dict[int, float]:
        """Return how many seconds a run of each contender takes, by handle.

        The runtime times them, in turns; of each golden input the shortest run counts, of these
        the mean. All contenders are run on the same inputs, those of the first one.

        Raises:
            RuntimeUnavailableError, RuntimeRefusedError: the runtime died, or a run failed.
        """
        manifest = read_manifest(self._blob(manifest_sha256))
        vectors = variant_of(manifest, contenders[0][1]).golden.vectors[:_VECTORS]
        versions = [handle(at) for at, _ in contenders]
        races = [self._runtime.race(manifest.family, versions, one.inputs) for one in vectors]
        return {at: _mean([seconds[handle(at)] for seconds in races]) for at, _ in contenders}


def handle(at: int) -> str:
    """Return the version under which a contender is loaded."""
    return f"{_HANDLE}{at}"


def winner(seconds: dict[int, float]) -> int:
    """Return the handle that wins: the fastest, where it is clearly faster than those before it."""
    order = sorted(seconds)
    best = order[0]
    for at in order[1:]:
        if seconds[at] < seconds[best] * _CLEARLY:
            best = at
    return best


def _under(manifest: Manifest, at: int) -> Manifest:
    return msgspec.structs.replace(manifest, version=handle(at))


def _mean(values: Sequence[float]) -> float:
    # `statistics` would keep 0.2 MiB of a process that shall be small.
    return sum(values) / len(values)
