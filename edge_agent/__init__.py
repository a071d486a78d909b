"""Everything that runs on a device: the runtime process, the control process, what they share.

``from edge_agent import InProcessRuntime`` serves a device's models inside the caller's process. It
is imported when it is asked for: nothing else here needs numpy or an inference library.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_agent.inference.in_process import InProcessRuntime

__all__ = ["InProcessRuntime"]


def __getattr__(name: str) -> object:
    if name != "InProcessRuntime":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from edge_agent.inference.in_process import InProcessRuntime  # noqa: PLC0415 (see above)

    return InProcessRuntime
