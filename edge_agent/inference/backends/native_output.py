"""Keeps what native libraries print on standard error out of the log, whose lines are JSON.

LiteRT prints a line when it makes its first interpreter and has no switch for that.
"""

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator

logger = logging.getLogger(__name__)

_STANDARD_ERROR = 2
_MAX_LINES = 50
_one_at_a_time = threading.Lock()


@contextlib.contextmanager
def logged_native_output(library: str) -> Iterator[None]:
    """Turn lines that anybody prints during the block into log records.

    Lines of our own log that other threads write meanwhile are passed on as they are. A process
    that dies inside the block takes its lines with it.
    """
    with _one_at_a_time:
        sys.stderr.flush()
        kept = os.dup(_STANDARD_ERROR)
        caught = os.memfd_create("stderr", os.MFD_CLOEXEC)
        os.dup2(caught, _STANDARD_ERROR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, _STANDARD_ERROR)
            os.close(kept)
            _pass_on(library, caught)


def _pass_on(library: str, caught: int) -> None:
    with os.fdopen(caught, "rb") as file:
        file.seek(0)
        lines = file.read().decode(errors="replace").splitlines()
    foreign = [line.strip() for line in lines if line.strip() and not line.startswith("{")]
    for line in lines:
        if line.startswith("{"):
            sys.stderr.write(f"{line}\n")
    for line in foreign[:_MAX_LINES]:
        logger.debug("library_output", extra={"library": library, "line": line[:1000]})
