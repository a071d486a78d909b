"""From ``active.json`` to served models: what makes the runtime independent of everybody else."""

import contextlib
import logging
from pathlib import Path

import msgspec

from edge_agent.errors import AgentError
from edge_agent.inference.data_plane import WHOLE_SET, DataPlane
from edge_agent.inference.fatal_starts import FatalStarts
from edge_agent.runtime_api import MAX_ACTIVE_SET_BYTES, ActiveRelease, ActiveSet

logger = logging.getLogger(__name__)


class ActiveSetError(AgentError):
    """``active.json`` cannot be used."""


def read_active_set(path: Path) -> ActiveSet:
    """Read the committed releases; a device without the file has committed to none.

    Raises:
        ActiveSetError: the file cannot be read or is not an active set.
    """
    try:
        with path.open("rb") as file:
            payload = file.read(MAX_ACTIVE_SET_BYTES + 1)
        if len(payload) > MAX_ACTIVE_SET_BYTES:
            raise ActiveSetError(f"{path} is larger than {MAX_ACTIVE_SET_BYTES} bytes")
        return msgspec.json.decode(payload, type=ActiveSet)
    except FileNotFoundError:
        return ActiveSet()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ActiveSetError(
            f"cannot use {path}: {error}; no model is served until control commits one"
        ) from error


async def serve_committed(
    plane: DataPlane, path: Path, *, starts: FatalStarts | None = None
) -> None:
    """Load and activate every committed release that can be loaded.

    What cannot is logged and noted in ``plane.failed``, and takes nobody else down.

    Args:
        plane: what shall serve them.
        path: of ``active.json``.
        starts: is told what is being loaded; None where a crash ends somebody else's process.
    """
    try:
        committed = read_active_set(path)
    except ActiveSetError as error:
        logger.error("active_set_unusable", extra={"reason": str(error)})  # noqa: TRY400 (no bug of ours)
        plane.failed[WHOLE_SET] = str(error)
        return
    for release in committed.releases:
        with starts.loading(release) if starts is not None else contextlib.nullcontext():
            await _serve(plane, release)


async def _serve(plane: DataPlane, release: ActiveRelease) -> None:
    try:
        await plane.load(release)
        plane.activate(release.family, release.version)
    except Exception as error:  # the others are served, whatever happens to this one
        expected = isinstance(error, AgentError)
        logger.error(  # noqa: TRY400 (a traceback only where we did not foresee it)
            "release_not_loaded",
            extra={
                "family": release.family,
                "version": release.version,
                "reason": str(error),
            },
            exc_info=None if expected else error,
        )
        plane.failed[release.family] = str(error) if expected else "internal error; see the log"
