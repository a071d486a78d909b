"""From a release's file to a warm model with its counters."""

import logging
from collections.abc import Callable
from pathlib import Path

from edge_agent import hardware, library_code
from edge_agent.counters import CounterFileError, CounterLabel, CountersError, CounterWriter
from edge_agent.inference import batches
from edge_agent.inference.backends.base import CPU, Backend, Model
from edge_agent.inference.backends.catalog import Catalog
from edge_agent.inference.backends.model_pool import ModelPool
from edge_agent.inference.device_faults import blaming_rightly
from edge_agent.inference.errors import DeviceFaultError, LoadError
from edge_agent.inference.memory_budget import Need, need_of
from edge_agent.inference.process_memory import anonymous_bytes
from edge_agent.inference.served_release import ServedRelease
from edge_agent.inference.survey import examine
from edge_agent.inference.warm_up import WarmUp, warm_up
from edge_agent.lean_memory import trim_heap
from edge_agent.runtime_api import ActiveRelease, Placement
from edge_agent.state_dir import StateDir

logger = logging.getLogger(__name__)


class ReleaseLoader:
    """Loads releases; blocks, so it is called beside the event loop, one call at a time."""

    def __init__(  # noqa: PLR0913 (its parts, by keyword)
        self,
        *,
        state: StateDir,
        epoch: str,
        catalog: Catalog,
        clock: Callable[[], float],
        survey: Callable[[], list[Placement]] | None = None,
        refusal: Callable[[ActiveRelease], str] = lambda _: "",
    ) -> None:
        """Load nothing yet.

        Args:
            state: where blobs are read and counters are written.
            epoch: unique to this life of the process; part of the counter files' names. Empty for a
                process whose calls nobody collects: it writes no such files.
            catalog: the backends.
            clock: times the warm-up, in seconds.
            survey: says what the backends can do here; None asks them in this process.
            refusal: says why a release must not be loaded; empty if it may be.
        """
        self.epoch = epoch
        self._state = state
        self._catalog = catalog
        self._clock = clock
        self._survey = survey
        self._refusal = refusal
        self._files = 0

    def placements(self) -> list[Placement]:
        """Return what the backends can do here; blocks for as long as their libraries load."""
        if self._survey is not None:
            return self._survey()
        here = hardware.look()
        return [
            placement
            for backend in self._catalog.backends
            for placement in examine(backend, backend.accelerators, here)
        ]

    def load(
        self,
        release: ActiveRelease,
        *,
        instances: int = 1,
        batched: bool = False,
        lull: Callable[[], None] | None = None,
        before: ServedRelease | None = None,
    ) -> ServedRelease:
        """Load, check, warm up and time a release.

        Args:
            release: whose file is among the blobs.
            instances: runs at a time that shall be possible, with copies of the model if need be.
            batched: whether calls shall run together, if that leaves each one's answer as it is.
            lull: waits until a step meets as few calls as can be; None where nobody is called.
            before: the same release, asleep, whose counts go on.

        Raises:
            DeviceFaultError: the file is gone or cannot be read, or the memory does not reach.
            LoadError: the model is not what the release says, or loading it has crashed the
                process too often.
        """
        if reason := self._refusal(release):
            raise LoadError(reason)
        backend = self._catalog.backend_for(
            release.format, release.accelerator, name=release.backend
        )
        path = self._state.blob(release.sha256)
        file_bytes = _size_of(path, release)
        rest = lull or _no_rest
        rest()
        unused = None if lull is None else library_code.unused()
        rest()
        backend.version()  # imports the library, whose own memory is not the model's
        trim_heap()
        taken_bytes = anonymous_bytes()

        def load_and_warm_up(file: Path) -> tuple[Model, WarmUp]:
            model = _loaded(backend, file, release, instances=instances)
            rest()
            # Before the warm-up, whose code is that of the calls to come.
            library_code.unmap(unused)
            rest()
            try:
                return model, warm_up(model, release, self._clock)
            except LoadError:
                model.close()
                raise

        # What is built for an accelerator may take minutes, which nobody waits for twice.
        model, warmed = blaming_rightly(load_and_warm_up, path, again=release.accelerator == CPU)
        try:
            counters = before.continued_counters() if before is not None else None
            counters = counters or self._counters(release)
        except LoadError:
            model.close()
            raise
        served = ServedRelease(
            release=release,
            backend_name=backend.name,
            model=model,
            counters=counters,
            warmed=warmed,
        )
        if before is not None and before.why_alone:
            served.why_alone = before.why_alone
        elif batched and batches.can_be_joined(release):
            rest()
            served.why_alone = _why_alone(model, release)
        # Memory that a model before it gave back is used again without any growth, and further
        # instances grow only when they run.
        known = need_of(
            measured_bytes=max(release.memory_bytes, file_bytes),
            file_bytes=file_bytes,
            instances=instances,
        )
        trim_heap()
        served.memory_bytes = max(anonymous_bytes() - taken_bytes, known.total_bytes)
        return served

    def memory_needed(self, release: ActiveRelease, *, instances: int) -> Need:
        """Return how much memory loading a release will take, as far as that can be known.

        Args:
            release: whose file is among the blobs.
            instances: as for `load`.
        """
        if self._refusal(release):
            return Need(first_bytes=0)  # it is not going to be loaded, so nobody has to leave
        try:
            file_bytes = self._state.blob(release.sha256).stat().st_size
        except OSError:
            return Need(first_bytes=0)  # loading will say what is wrong with the file
        return need_of(
            measured_bytes=release.memory_bytes, file_bytes=file_bytes, instances=instances
        )

    def _counters(self, release: ActiveRelease) -> CounterWriter:
        self._files += 1
        path = self._state.run / f"counters-{self.epoch}-{self._files}.bin"
        classes = next((spec.labels for spec in release.outputs if spec.labels), [])
        label = CounterLabel(
            epoch=self.epoch,
            family=release.family,
            version=release.version,
            variant=release.variant,
            classes=classes,
        )
        try:
            return CounterWriter(path if self.epoch else None, label)
        except CounterFileError as error:
            # Answers without telemetry are worth more than telemetry without answers.
            logger.error(  # noqa: TRY400 (the disk's words say it)
                "calls_not_reported",
                extra={
                    "family": release.family,
                    "version": release.version,
                    "reason": f"{error}; its calls are answered and not reported until the "
                    "release is loaded again",
                },
            )
            return CounterWriter(None, label)
        except CountersError as error:
            raise LoadError(
                f"cannot count for {release.family} {release.version}: {error}"
            ) from error


def _why_alone(model: Model, release: ActiveRelease) -> str:
    from edge_agent.inference import batch_check  # noqa: PLC0415 (numpy only where batches are wanted)

    reason = batch_check.why_not_together(model, release)
    if reason:
        logger.warning(
            "batching_off",
            extra={"family": release.family, "version": release.version, "reason": reason},
        )
    return reason


def _no_rest() -> None:
    """Go on at once."""


def _size_of(path: Path, release: ActiveRelease) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError as error:
        raise DeviceFaultError(
            f"the file of {release.family} {release.version} is not among the blobs: {path}"
        ) from error
    except OSError as error:
        raise DeviceFaultError(
            f"this device cannot look at the file of {release.family} {release.version}: "
            f"{error.strerror or error}"
        ) from error


def _loaded(backend: Backend, path: Path, release: ActiveRelease, *, instances: int) -> Model:
    first = backend.load(path, release)
    most = first.max_concurrent_runs
    if most is None or most >= instances:
        return first
    copies: list[Model] = [first]
    try:
        while len(copies) < instances:
            copies.append(backend.load(path, release))
    except LoadError:
        ModelPool(copies).close()
        raise
    return ModelPool(copies)
