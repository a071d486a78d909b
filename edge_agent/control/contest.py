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
_ROUNDS = 15
_ENOUGH_S = 20.0
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
        timer: Callable[[], float],
    ) -> None:
        self._runtime = runtime
        self._blob = blob
        self._available_memory = available_memory
        self._timer = timer

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
            InstallRefusedError: the manifest is gone from the disk.
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
        """Return how many seconds a call of each contender takes, by handle.

        They take turns, so a machine that slows down slows all of them down. The fastest call of
        each golden input counts: control runs at idle priority, and what made a call of its wait
        says nothing about the model.

        Raises:
            RuntimeUnavailableError, RuntimeRefusedError: the runtime died, or a call failed.
        """
        manifest = read_manifest(self._blob(manifest_sha256))
        vectors = {at: variant_of(manifest, of).golden.vectors for at, of in contenders}
        fastest: dict[int, dict[int, float]] = {at: {} for at in vectors}
        outputs = [spec.name for spec in manifest.outputs]
        began = self._timer()
        for turn in range(_ROUNDS):
            for at, given in vectors.items():
                which = turn % len(given)
                before = self._timer()
                self._runtime.infer(manifest.family, handle(at), given[which].inputs, outputs)
                seconds = self._timer() - before
                fastest[at][which] = min(fastest[at].get(which, seconds), seconds)
            if self._timer() - began > _ENOUGH_S:
                break
        return {at: sum(times.values()) / len(times) for at, times in fastest.items()}


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
