"""Files that hold a secret: refused, as ssh does, while others on the machine may read them.

As with ssh, a file that belongs to somebody else is taken as it is: whoever mounts a secret into a
container decides about its mode.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

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


@contextmanager
def new(path: Path, what: str) -> Iterator[BinaryIO]:
    """Open a file that did not exist yet, for its owner alone; durable when the block ends.

    It is there before the block begins, so that no secret is made for which there is no place, and
    gone again if the block fails.

    Args:
        path: of the file.
        what: it will hold, for messages.

    Raises:
        SigningKeyError: it exists, or the disk refuses.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise SigningKeyError(
            f"{path} exists and may be in use: choose another place for the {what}, or move it away"
        ) from None
    except OSError as error:
        raise _unwritable(path, what, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _sync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritable(path, what, error) from error
        raise


def _unwritable(path: Path, what: str, error: OSError) -> SigningKeyError:
    return SigningKeyError(f"cannot write the {what} {path}: {error.strerror}")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check(found: os.stat_result, path: Path, what: str) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and mode & _OTHERS:
        raise SigningKeyError(
            f"the {what} {path} is open to others on this machine (mode {mode:04o}), so it may be "
            f"known to them: if it cannot be, run `chmod 600 {path}` and try again; else replace it"
        )
