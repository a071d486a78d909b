"""A runtime process in memory: what control sees behind the admin socket, with real counters."""

import secrets
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_agent import counters
from edge_agent.control.runtime_client import (
    RuntimeFaultError,
    RuntimeRefusedError,
    RuntimeUnavailableError,
)
from edge_agent.control.v2_binary import Tensor
from edge_agent.counters import CounterFileError, CounterLabel, CounterWriter
from edge_agent.runtime_api import (
    ActiveRelease,
    ActiveSet,
    LoadedRelease,
    Placement,
    RuntimeStatus,
    ShadowOrder,
    ShadowReport,
)
from edge_agent.state_dir import StateDir
from fleet_protocol.manifest import Datatype, Format, GoldenTensor
from fleet_protocol.messages import ErrorKind
from tests.simulators.device_releases import LABELS

if TYPE_CHECKING:
    from tests.simulators.device_clock import ManualClock

PID = 4711


class SimulatedRuntime:
    """Implements the agent's `Runtime`; boots from ``active.json`` like the real one.

    Attributes:
        models: what a version or variant computes; one that is not named doubles its input.
        unloadable: versions and variants that the runtime refuses to load.
        failing: versions whose calls fail, for tests that make calls.
        deadly: versions and variants whose load kills the runtime.
        fault: what the device fails at whenever something is loaded; empty for nothing.
        too_large: variants that the device has no memory for when they are loaded.
        durations_s: how long a call of a variant takes, on ``clock``.
        clock: advanced by calls.
        problems: accelerators beside the CPU, each with why it cannot be used.
        shadowed: what it says about shadowing, one after the other; the last one stays.
        running_s: see `RuntimeStatus`; forgotten at a boot, as `loading_s`.
        loading_s: likewise.
        latency_us: of the calls of applications.
        counting: False as long as there is no room for counter files.
    """

    def __init__(self, state: StateDir) -> None:
        self.models: dict[str, Callable[[float], float]] = {}
        self.unloadable: set[str] = set()
        self.failing: set[str] = set()
        self.deadly: set[str] = set()
        self.fault = ""
        self.too_large: set[str] = set()
        self.durations_s: dict[str, float] = {}
        self.clock: ManualClock | None = None
        self.problems: dict[str, str] = {}
        self.shadowed = [ShadowReport(compared=0, agreed=0)]
        self.running_s: dict[str, float] = {}
        self.loading_s = 0.0
        self.counting = True
        self.latency_us = 100.0
        self.down = False
        self.calls: list[str] = []
        self._state = state
        self._files = 0
        self._epoch = ""
        self._loaded: dict[tuple[str, str], ActiveRelease] = {}
        self._active: dict[str, str] = {}
        self._failed: dict[str, str] = {}
        self._counters: dict[tuple[str, str], CounterWriter] = {}
        self.boot()

    def boot(self) -> None:
        """Begin a new life from ``active.json``; the old one ended without a word."""
        self.down = False
        self.running_s, self.loading_s = {}, 0.0
        self._epoch = secrets.token_hex(8)
        self._loaded, self._active, self._failed, self._counters = {}, {}, {}, {}
        counters.remove_unfinished(self._state.run)
        path = self._state.active_set
        releases = (
            msgspec.json.decode(path.read_bytes(), type=ActiveSet).releases if path.exists() else []
        )
        for release in releases:
            if release.version in self.unloadable:
                self._failed[release.family] = "this is not a model"
            elif self._readable(release):
                self._load(release)
                self._active[release.family] = release.version
            else:
                self._failed[release.family] = "its file cannot be read"

    def serving(self, family: str) -> str | None:
        """Return the version that answers calls."""
        return self._active.get(family)

    def loaded(self) -> set[str]:
        """Return the versions in memory."""
        return {version for _, version in self._loaded}

    def answer_calls(self, family: str, *, good: int = 0, bad: int = 0) -> None:
        """Count calls of applications on the active version."""
        counters = self._counters[family, self._active[family]]
        for _ in range(good):
            counters.answered(self.latency_us)
            counters.classified(0)
        for _ in range(bad):
            counters.failed(ErrorKind.BACKEND)

    def status(self) -> RuntimeStatus:
        self._called("status")
        return RuntimeStatus(
            epoch=self._epoch,
            pid=PID,
            releases=[
                LoadedRelease(
                    family=family,
                    version=version,
                    variant=release.variant,
                    backend="onnxruntime",
                    accelerator=release.accelerator,
                    active=self._active.get(family) == version,
                    choice=release.choice,
                )
                for (family, version), release in self._loaded.items()
            ],
            resident_bytes=len(self.calls),
            backends={"onnxruntime": "1.0"},
            failed=dict(self._failed),
            placements=self._placements(),
            running_s=self.running_s,
            loading_s=self.loading_s,
        )

    def load(self, release: ActiveRelease) -> None:
        self._called("load")
        if not self.deadly.isdisjoint({release.version, release.variant}):
            self.down = True
            raise RuntimeUnavailableError("the runtime died while it loaded")
        if not self.unloadable.isdisjoint({release.version, release.variant}):
            raise RuntimeRefusedError("this is not a model", status=422)
        if self.fault:
            raise RuntimeFaultError(self.fault)
        if release.variant in self.too_large:
            raise RuntimeFaultError("this device failed: Failed to allocate memory")
        if (release.family, release.version) in self._loaded:
            return
        if not self._readable(release):
            raise RuntimeFaultError("this device failed while it loaded: Input/output error")
        self._load(release)

    def activate(self, family: str, version: str) -> None:
        self._called("activate")
        if (family, version) not in self._loaded:
            raise RuntimeRefusedError("not loaded", status=404)
        self._active[family] = version
        self._failed.pop(family, None)

    def shadow(self, family: str, order: ShadowOrder) -> ShadowReport:
        self._called("shadow")
        if (family, order.version) not in self._loaded or family not in self._active:
            raise RuntimeRefusedError("there is nothing to compare", status=409)
        return self.shadowed.pop(0) if len(self.shadowed) > 1 else self.shadowed[0]

    def unload(self, family: str, version: str) -> None:
        self._called("unload")
        if self._active.get(family) == version:
            raise RuntimeRefusedError("it is active", status=409)
        self._drop(family, version)

    def stop_family(self, family: str) -> None:
        self._called("stop_family")
        self._active.pop(family, None)
        self._failed.pop(family, None)
        for loaded_family, version in list(self._loaded):
            if loaded_family == family:
                self._drop(family, version)

    def infer(
        self,
        family: str,
        version: str,
        inputs: Sequence[GoldenTensor],
        outputs: Sequence[str],
    ) -> dict[str, Tensor]:
        self._called("infer")
        if (family, version) not in self._loaded:
            raise RuntimeRefusedError("not loaded", status=404)
        variant = self._loaded[family, version].variant
        if self.clock is not None:
            self.clock.advance(self.durations_s.get(variant, 0.0))
        model = self.models.get(version) or self.models.get(variant, _double)
        values = array("f", inputs[0].data())
        data = array("f", [model(value) for value in values]).tobytes()
        return {outputs[0]: Tensor(outputs[0], Datatype.FP32, inputs[0].shape, data)}

    def race(
        self, family: str, versions: Sequence[str], inputs: Sequence[GoldenTensor]
    ) -> dict[str, float]:
        self._called("race")
        assert inputs
        return {
            version: self.durations_s.get(self._loaded[family, version].variant, 0.0)
            for version in versions
        }

    def _placements(self) -> list[Placement]:
        return [
            Placement(
                backend="onnxruntime",
                version="" if problem else "1.0",
                format=Format.ONNX,
                accelerator=accelerator,
                problem=problem,
            )
            for accelerator, problem in {"cpu": "", **self.problems}.items()
        ]

    def _called(self, name: str) -> None:
        if self.down:
            raise RuntimeUnavailableError("the runtime is down")
        self.calls.append(name)

    def _readable(self, release: ActiveRelease) -> bool:
        try:
            self._state.blob(release.sha256).read_bytes()
        except OSError:
            return False
        return True

    def _load(self, release: ActiveRelease) -> None:
        self._files += 1
        key = (release.family, release.version)
        self._loaded[key] = release
        label = CounterLabel(
            epoch=self._epoch,
            family=release.family,
            version=release.version,
            variant=release.variant,
            classes=LABELS,
        )
        path = self._counter_path() if self.counting else None
        try:
            self._counters[key] = CounterWriter(path, label)
        except CounterFileError:  # as the real loader: answers without counts
            self._counters[key] = CounterWriter(None, label)

    def _counter_path(self) -> Path:
        return self._state.run / f"counters-{self._epoch}-{self._files}.bin"

    def _drop(self, family: str, version: str) -> None:
        if self._loaded.pop((family, version), None) is not None:
            self._counters.pop((family, version)).close()


def _double(value: float) -> float:
    return 2 * value
