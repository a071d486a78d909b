"""The trial of a candidate beside the active release, the switch, and the way back.

Every step may be repeated after a crash: loading and activating are idempotent in the runtime.
Methods block their thread.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from edge_agent.control import golden
from edge_agent.control.blob_audit import damage_of
from edge_agent.control.install import read_manifest, variant_of
from edge_agent.control.install_rule import InstallRefusedError
from edge_agent.control.journal import Candidate
from edge_agent.control.runtime_client import Runtime, RuntimeUnavailableError
from edge_agent.errors import AgentError
from edge_agent.runtime_api import ActiveRelease, ShadowOrder, ShadowReport
from fleet_protocol.manifest import Shadowing


class NotEnoughMemoryError(AgentError):
    """The candidate does not fit beside what runs now."""


class Trial:
    """Loads, checks and switches candidates."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        blob: Callable[[str], Path],
        available_memory: Callable[[], int | None],
        total_memory: Callable[[], int | None],
    ) -> None:
        self._runtime = runtime
        self._blob = blob
        self._total_memory = total_memory
        self._available_memory = available_memory

    def check(self, candidate: Candidate) -> str:
        """Load the candidate and check its golden answers; return the epoch of the runtime.

        Raises:
            NotEnoughMemoryError: loading it could starve the device now.
            InstallRefusedError: the device will never have the memory.
            GoldenCheckError: it answers wrongly or too slowly.
            StoreError: its manifest cannot be read.
            RuntimeRefusedError: the runtime cannot load or run it.
            RuntimeUnavailableError: the runtime died or restarted on the way.
        """
        release = candidate.release
        manifest = read_manifest(self._blob(candidate.manifest_sha256))
        variant = variant_of(manifest, release)
        before = self._runtime.status()
        with self._in_one_life(before.epoch):
            if (release.family, release.version) not in {
                (loaded.family, loaded.version) for loaded in before.releases
            }:
                self._admit(candidate)
            self._runtime.load(release)
            golden.check(self._runtime, manifest, variant)
        return before.epoch

    def damage(self, candidate: Candidate) -> str:
        """Return what is wrong with the files of a candidate, which were verified; empty if whole.

        A release is not to blame for what it does from other bytes than its own.
        """
        files = {candidate.manifest_sha256: "manifest", candidate.release.sha256: "file"}
        files |= {contender.sha256: "file" for contender in candidate.contenders}
        for sha256, what in files.items():
            found = damage_of(self._blob(sha256), sha256)
            if found is not None:
                return f"the {what} {sha256[:12]}... on this device {found.reason}"
        return ""

    def answers(self, release: ActiveRelease, manifest_sha256: str) -> None:
        """Check the golden answers of a loaded release, however long they take.

        Raises:
            GoldenCheckError: it answers wrongly.
            StoreError: its manifest cannot be read.
            RuntimeRefusedError: the runtime cannot run it.
            RuntimeUnavailableError: the runtime died on the way.
        """
        manifest = read_manifest(self._blob(manifest_sha256))
        patient = msgspec.structs.replace(manifest.acceptance, max_p95_latency_ms=None)
        golden.check(
            self._runtime,
            msgspec.structs.replace(manifest, acceptance=patient),
            variant_of(manifest, release),
        )

    def shadow(self, release: ActiveRelease, epoch: str, shadowing: Shadowing) -> ShadowReport:
        """Let a checked candidate answer live requests unseen; return how far that is.

        Raises:
            RuntimeRefusedError: nothing serves, or what serves has other inputs or outputs.
            RuntimeUnavailableError: the runtime died or restarted since it was checked.
        """
        order = ShadowOrder(
            version=release.version,
            requests=shadowing.requests,
            max_abs_error=shadowing.max_abs_error,
        )
        with self._in_one_life(epoch):
            return self._runtime.shadow(release.family, order)

    def switch_to(self, release: ActiveRelease, epoch: str) -> None:
        """Let a checked candidate serve.

        Raises:
            RuntimeRefusedError: it is not loaded.
            RuntimeUnavailableError: the runtime died or restarted since it was checked.
        """
        with self._in_one_life(epoch):
            self._runtime.activate(release.family, release.version)

    @contextmanager
    def _in_one_life(self, epoch: str) -> Iterator[None]:
        """Make sure that the runtime did not restart meanwhile; what it refused then is no verdict.

        Raises:
            RuntimeUnavailableError: it did, or does not answer.
        """
        try:
            yield
        finally:
            if self._runtime.status().epoch != epoch:
                raise RuntimeUnavailableError("the runtime restarted during the trial")

    def withdraw(self, candidate: ActiveRelease, committed: ActiveRelease | None) -> None:
        """Let the committed release serve again, or nothing if there is none; drop the candidate.

        Raises:
            RuntimeRefusedError: the runtime cannot serve the committed release.
            RuntimeUnavailableError: the runtime does not answer.
        """
        loaded = [
            release
            for release in self._runtime.status().releases
            if (release.family, release.version) == (candidate.family, candidate.version)
        ]
        if committed is not None and committed.version == candidate.version:
            return
        if any(release.active for release in loaded):
            self.put_back(candidate.family, committed)
        if loaded:
            self._runtime.unload(candidate.family, candidate.version)

    def put_back(self, family: str, committed: ActiveRelease | None) -> None:
        """Let the committed release serve again, or nothing if there is none.

        Raises:
            RuntimeRefusedError: the runtime cannot serve the committed release.
            RuntimeUnavailableError: the runtime does not answer.
        """
        if committed is None:
            self._runtime.stop_family(family)
        else:
            self.serve(committed)

    def serve(self, release: ActiveRelease) -> None:
        """Load and activate a committed release.

        Raises:
            RuntimeRefusedError: the runtime cannot.
            RuntimeUnavailableError: the runtime does not answer.
        """
        self._runtime.load(release)
        self._runtime.activate(release.family, release.version)

    def _admit(self, candidate: Candidate) -> None:
        total = self._total_memory()
        if total is not None and candidate.memory_bytes > total:
            raise InstallRefusedError(
                f"{candidate.release.family} {candidate.release.version} takes "
                f"{candidate.memory_bytes} bytes of memory, this device has {total}"
            )
        available = self._available_memory()
        if available is not None and candidate.memory_bytes > available:
            raise NotEnoughMemoryError(
                f"{candidate.release.family} {candidate.release.version} takes "
                f"{candidate.memory_bytes} bytes of memory, {available} are available"
            )
