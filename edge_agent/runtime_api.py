"""What crosses the seam between the control process and the runtime process.

`ActiveSet` is the content of ``active.json``, from which the runtime boots alone. The other structs
are bodies of the admin socket. Neither process imports the other's code beyond this module,
`edge_agent.counters` and `edge_agent.state_dir`.
"""

from typing import Annotated, Literal

import msgspec

from fleet_protocol.manifest import Format, TensorSpec
from fleet_protocol.names import Family, Sha256, Version

MAX_ACTIVE_SET_BYTES = 1024 * 1024

DEVICE_FAULT_STATUS = 507
"""Status of an answer that says: the disk or the memory of this device failed, not the release."""


class ActiveRelease(msgspec.Struct, frozen=True, kw_only=True):
    """All that the runtime needs to serve one release of one family.

    Attributes:
        sha256: names the file below ``blobs/``; control has verified it before it says so.
        accelerator: where to run it, ``cpu`` for the plain backend.
        backend: which backend runs it; empty for the first that serves format and accelerator.
        choice: for a person: why this variant runs here and not another one of the release.
        memory_bytes: that loading takes as the publisher measured it, 0 if nobody has.
    """

    family: Family
    version: Version
    variant: str
    format: Format
    accelerator: str
    sha256: Sha256
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    backend: str = ""
    choice: str = ""
    memory_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0


class ActiveSet(msgspec.Struct, frozen=True, kw_only=True):
    """The committed releases of the device, at most one for each family."""

    schema: Literal[1] = 1
    releases: Annotated[list[ActiveRelease], msgspec.Meta(max_length=256)] = []


class Activation(msgspec.Struct, frozen=True, kw_only=True):
    """Body of ``POST /admin/families/<family>/activate``."""

    version: Version


class ShadowOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Body of ``POST /admin/families/<family>/shadow``: begin, or say how far it is.

    Attributes:
        version: a loaded release that answers live requests too, unseen by their callers.
        requests: answers to compare with those of the active release.
        max_abs_error: how far outputs without labels may differ and agree.
    """

    version: Version
    requests: Annotated[int, msgspec.Meta(ge=1)]
    max_abs_error: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class ShadowReport(msgspec.Struct, frozen=True, kw_only=True):
    """Its answer.

    Attributes:
        compared: answers so far, those that failed among them.
        agreed: of these.
        problem: what the last call that failed said; empty if none has.
        running_s: how long the candidate's answer that is under way takes already.
    """

    compared: int
    agreed: int
    problem: str = ""
    running_s: float = 0.0


class RaceResult(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``POST /admin/families/<family>/race/<version>,<version>...``.

    The body is an inference request, on which the versions are run in turns.

    Attributes:
        seconds: the shortest run of each version.
    """

    seconds: dict[str, float]


class LoadedRelease(msgspec.Struct, frozen=True, kw_only=True):
    """A release that the runtime has loaded; at most one of a family is active.

    An active one that is idle may be out of memory until it is called (`RuntimeStatus.asleep`).
    """

    family: Family
    version: Version
    variant: str
    backend: str
    accelerator: str
    active: bool
    choice: str = ""


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """What one backend can do with one format on one accelerator of this machine.

    Attributes:
        version: of the backend's library; empty where it is not usable.
        problem: why not, as a sentence; empty where it works.
    """

    backend: str
    version: str
    format: Format
    accelerator: str
    problem: str = ""


class RuntimeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``GET /admin/status``.

    Attributes:
        epoch: unique to one life of the runtime process.
        backends: name of each usable backend to its library's version.
        placements: what runs where, and why not for the rest; empty until that has been found out.
        memory_budget_bytes: for all models; 0 from a runtime that knows no budget.
        model_memory_bytes: what each loaded release takes, by family and version with a blank.
        asleep: active families whose model has left memory until it is called.
        failed: families of ``active.json`` that could not be loaded, with the reason.
        running_s: how long the oldest run of each release lasts already that is under way, by
            family and version with a blank; those that run nothing are not in it.
        loading_s: how long the load that is under way lasts already, 0 if there is none.
        settings_problem: why the settings that serve are not those of ``agent.toml``.
    """

    epoch: str
    pid: int
    releases: list[LoadedRelease]
    resident_bytes: int
    backends: dict[str, str]
    failed: dict[str, str] = {}
    placements: list[Placement] = []
    memory_budget_bytes: int = 0
    model_memory_bytes: dict[str, int] = {}
    asleep: list[str] = []
    running_s: dict[str, float] = {}
    loading_s: float = 0.0
    settings_problem: str = ""
