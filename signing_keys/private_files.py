"""Files that hold a secret: refused, as ssh does, while others on the machine may read them.

As with ssh, a file that belongs to somebody else is taken as it is: whoever mounts a secret into a
container decides about its mode.
"""

import os
import stat
from pathlib import Path

from signing_keys.errors import SigningKeyError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read(path: Path, what: str, *, max_bytes: int = -1) -> bytes:
    """Return the content of a file that only its owner may open.

    Args:
        path: of the file.
        what: it holds, for messages.
        max_bytes: are read at most; -1 for all.

    Raises:
        SigningKeyError: it cannot be read, or others may open it.
    """
    try:
        with path.open("rb") as file:
            _check(os.fstat(file.fileno()), path, what)
            return file.read(max_bytes)
    except OSError as error:
        raise SigningKeyError(f"cannot read the {what} {path}: {error.strerror}") from error


def _check(found: os.stat_result, path: Path, what: str) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and mode & _OTHERS:
        raise SigningKeyError(
            f"the {what} {path} is open to others on this machine (mode {mode:04o}), so it may be "
            f"known to them: if it cannot be, run `chmod 600 {path}` and try again; else replace it"
        )
