"""What every backend can do on this machine; each is asked in a process of its own.

As a program (``python -m edge_agent.inference.survey --backend NAME``) it is that process.
"""

import argparse
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_agent import hardware
from edge_agent.errors import AgentError
from edge_agent.hardware import Hardware
from edge_agent.inference.backends.base import Backend
from edge_agent.inference.probe import ProbeError, Prober, lower_priority, stamps
from edge_agent.runtime_api import Placement

MODULE = "edge_agent.inference.survey"

_LOOK_AGAIN_S = 5.0
"""Looking at the hardware holds the interpreter for 1 ms, which calls have to wait for."""

_TRY_AGAIN_S = 300.0

_EXTRAS = {"onnxruntime": "onnx", "litert": "litert", "openvino": "openvino"}


@dataclass(frozen=True, slots=True)
class _Known:
    """What the last survey found, on which hardware and when."""

    hardware: Hardware
    placements: list[Placement]
    at_s: float

    def is_stale(self, here: Hardware, now_s: float) -> bool:
        if here != self.hardware:
            return True
        hopeful = bool(here.devices) and any(found.problem for found in self.placements)
        return hopeful and now_s - self.at_s > _TRY_AGAIN_S


class Survey:
    """Asks each backend once, and again when the hardware or a library's file has changed."""

    def __init__(
        self,
        *,
        backends: Iterable[Backend],
        prober: Prober,
        look: Callable[[], Hardware] = hardware.look,
        options: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask nothing yet.

        Args:
            backends: all that are known, installed or not.
            prober: asks.
            look: returns the hardware.
            options: arguments for the program, such as ``--edgetpu-library``.
            clock: seconds, monotonic.
        """
        self._backends = tuple(backends)
        self._prober = prober
        self._look = look
        self._options = options
        self._clock = clock
        self._lock = threading.Lock()
        self._known: _Known | None = None
        self._looked_s = 0.0

    def placements(self) -> list[Placement]:
        """Return what each backend can do here; blocks for as long as the libraries load."""
        with self._lock:
            known, now_s = self._known, self._clock()
            if known is not None and now_s - self._looked_s < _LOOK_AGAIN_S:
                return known.placements
            self._looked_s = now_s
            here = self._look()
            if known is None or known.is_stale(here, now_s):
                found = [found for backend in self._backends for found in self._of(backend, here)]
                self._known = known = _Known(here, found, self._clock())
            return known.placements

    def _of(self, backend: Backend, here: Hardware) -> list[Placement]:
        if not backend.files():
            return [
                placement
                for accelerator in backend.accelerators
                for placement in _unusable(backend, accelerator, not_installed(backend.name))
            ]
        try:
            return self._ask(backend, backend.accelerators, here)
        except ProbeError:
            # One of them took the others down with it.
            return [
                placement
                for accelerator in backend.accelerators
                for placement in self._one(backend, accelerator, here)
            ]

    def _one(self, backend: Backend, accelerator: str, here: Hardware) -> list[Placement]:
        try:
            return self._ask(backend, (accelerator,), here)
        except ProbeError as error:
            return _unusable(backend, accelerator, f"{backend.name} cannot use it: {error}")

    def _ask(
        self, backend: Backend, accelerators: Sequence[str], here: Hardware
    ) -> list[Placement]:
        def lasting(answer: str) -> bool:
            # With devices about, a cable or a permission may mend what does not work.
            return not here.devices or not any(found.problem for found in _placements(answer))

        answer = self._prober.ask(
            MODULE,
            ["--backend", backend.name, "--accelerators", ",".join(accelerators), *self._options],
            depends_on=[here.fingerprint(), *stamps(backend.files())],
            lasting=lasting,
        )
        return _placements(answer)


def with_used(
    placements: Sequence[Placement], used: Collection[tuple[str, str]]
) -> list[Placement]:
    """Return placements with those in use made usable, which a child cannot find out.

    Args:
        placements: of a survey.
        used: (backend, accelerator) of the models in memory; a device that serves us is not free
            for the child that tries it.
    """
    versions = {found.backend: found.version for found in placements if found.version}
    return [
        msgspec.structs.replace(found, version=versions.get(found.backend, "in use"), problem="")
        if found.problem and (found.backend, found.accelerator) in used
        else found
        for found in placements
    ]


def not_installed(name: str) -> str:
    """Return the sentence for a backend without its library."""
    extra = _EXTRAS.get(name)
    if extra is None:
        return (
            f"{name} finds no library on this device; whoever made this backend says what it needs"
        )
    return f"{name} is not installed: pip install 'skerry[{extra}]'"


def examine(backend: Backend, accelerators: Sequence[str], here: Hardware) -> list[Placement]:
    """Ask a backend in this process; it may crash."""
    version = backend.version()
    found = []
    for accelerator in accelerators:
        if version is None:
            problem: str | None = f"{backend.name} is installed but cannot be imported"
        else:
            problem = backend.why_not(accelerator, here)
        if problem is not None:
            found += _unusable(backend, accelerator, problem)
        else:
            found += _placed(backend, accelerator, version=version or "", problem="")
    return found


def _unusable(backend: Backend, accelerator: str, problem: str) -> list[Placement]:
    return _placed(backend, accelerator, version="", problem=problem)


def _placed(backend: Backend, accelerator: str, *, version: str, problem: str) -> list[Placement]:
    return [
        Placement(
            backend=backend.name,
            version=version,
            format=file_format,
            accelerator=accelerator,
            problem=problem,
        )
        for file_format in sorted(backend.formats)
    ]


def _placements(answer: str) -> list[Placement]:
    try:
        return msgspec.json.decode(answer, type=list[Placement])
    except msgspec.DecodeError as error:
        raise ProbeError(f"its answer is not understood: {error}") from error


def main() -> int:
    """Print what one backend can do here, as a line of JSON."""
    from edge_agent.inference.backends import catalog  # noqa: PLC0415 (it imports survey's users)

    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}")
    parser.add_argument("--backend", required=True)
    parser.add_argument("--accelerators", required=True)
    parser.add_argument("--edgetpu-library", type=Path, default=None)
    arguments = parser.parse_args()
    lower_priority()
    try:
        known = catalog.installed(threads=1, edgetpu_library=arguments.edgetpu_library)
        found = examine(
            known.named(arguments.backend), arguments.accelerators.split(","), hardware.look()
        )
    except AgentError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
