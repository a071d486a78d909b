"""Files that the disk does not read any more, until they are other files or the disk recovers."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Let every attempt to open a file fail; one that takes its name later can be read."""
    bad = _identity(path)
    real: Callable[..., Any] = Path.open

    def opened(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 (any file)
        if self.name == path.name and mode == "rb" and _identity(self) == bad:
            raise OSError(errno.EIO, "Input/output error")
        return real(self, mode, *arguments, **options)

    with mock.patch.object(Path, "open", opened):
        yield


def _identity(path: Path) -> tuple[int, int] | None:
    if not path.exists():
        return None
    status = path.stat()
    return status.st_ino, status.st_mtime_ns
