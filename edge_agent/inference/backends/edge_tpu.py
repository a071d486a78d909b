"""The Coral Edge TPU behind LiteRT: finds Google's ``libedgetpu`` and tries it in a child first.

The library is loaded as an external delegate (PyPI's ``pycoral`` is not Google's). One that was
built for another LiteRT may crash the process that loads it, so a child does it before us.
"""

import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edge_agent.hardware import Device
from edge_agent.inference.errors import LoadError
from edge_agent.inference.probe import ProbeError, Prober, stamps

EDGE_TPU = "edgetpu"
"""The accelerator's name in manifests."""

PROBE = "edge_agent.inference.backends.delegate_probe"

_FILE = "libedgetpu.so.1"
_FOLDERS = (
    f"/usr/lib/{platform.machine()}-linux-gnu",
    "/usr/lib/arm-linux-gnueabihf",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
)
_INSTALL = (
    "install Google's libedgetpu1-std, in the version made for the installed LiteRT, or name it "
    "in the setting runtime.edgetpu_library"
)


class EdgeTpu:
    """One delegate library and what is known of it."""

    def __init__(
        self,
        *,
        library: Path | None,
        prober: Prober,
        beside: Callable[[], Sequence[Path]],
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Load nothing yet.

        Args:
            library: the delegate; None looks for libedgetpu where Debian puts it.
            prober: tries it in a child.
            beside: returns the files of LiteRT, whose change asks for a new trial.
            options: handed to the delegate.
        """
        self._given = library
        self._prober = prober
        self._beside = beside
        self._options = dict(options or {})
        self._proven = False

    def files(self) -> list[Path]:
        """Return the delegate's file if it is here."""
        library = self._library()
        return [library] if library is not None else []

    def why_not(self, devices: Sequence[Device]) -> str | None:
        """Return why the delegate cannot be used here, None where it can; tries it in a child."""
        if not devices and self._given is None:
            return "no Coral Edge TPU is connected"
        library = self._library()
        if library is None:
            return f"{self._missing()}: {_INSTALL}"
        problems = [device.problem for device in devices]
        if devices and all(problems):
            return problems[0]
        try:
            self._try(library, [])
        except LoadError as error:
            return str(error)
        return None

    def check_with(self, model: Path) -> None:
        """Run a model once on the Edge TPU in a child, unless this process has done so itself.

        Raises:
            LoadError: there is no library, or it fails or crashes with this LiteRT.
        """
        if not self._proven:
            self._try(self._required(), [model])

    def delegate(self, load: Callable[..., object]) -> object:
        """Load the delegate into this process.

        Args:
            load: LiteRT's ``load_delegate``.

        Raises:
            LoadError: it does not load.
        """
        library = self._required()
        try:
            loaded = load(str(library), self._options)
        except (ValueError, OSError) as error:
            raise LoadError(_failed(library, str(error))) from error
        # From here on the device is ours, and a child could not open it any more.
        self._proven = True
        return loaded

    def _try(self, library: Path, models: list[Path]) -> None:
        options = [f"--option={name}={value}" for name, value in sorted(self._options.items())]
        try:
            self._prober.ask(
                PROBE,
                [*options, str(library), *map(str, models)],
                depends_on=stamps([library, *models, *self._beside()]),
            )
        except ProbeError as error:
            raise LoadError(_failed(library, str(error))) from error

    def _library(self) -> Path | None:
        candidates = [self._given] if self._given else [Path(at, _FILE) for at in _FOLDERS]
        return next((path for path in candidates if path.is_file()), None)

    def _required(self) -> Path:
        library = self._library()
        if library is None:
            raise LoadError(f"the Edge TPU cannot be used: {self._missing()}; {_INSTALL}")
        return library

    def _missing(self) -> str:
        return f"there is no {self._given or _FILE}"


def _failed(library: Path, reason: str) -> str:
    return (
        f"the Edge TPU library {library} does not work beside the installed LiteRT ({reason}): "
        "the device may be unplugged or used by another process, or the library is made for "
        "another version of LiteRT"
    )
