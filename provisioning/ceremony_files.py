"""The files that a ceremony passes around: read up to a limit, written whole, never overwritten."""

from pathlib import Path

from provisioning import drafts, durable_files
from provisioning.errors import ProvisioningError


def read(path: Path) -> bytes:
    """Return the content of a file, cut off beyond what any draft may have.

    Raises:
        ProvisioningError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(drafts.MAX_BYTES + 1)
    except OSError as error:
        raise ProvisioningError(f"cannot read {path}: {error.strerror}") from error


def check_absent(path: Path) -> None:
    """Refuse a name that is taken.

    Raises:
        ProvisioningError: it is, or cannot be looked at.
    """
    try:
        taken = path.exists()
    except OSError as error:
        raise ProvisioningError(f"cannot write {path}: {error.strerror}") from error
    if taken:
        raise ProvisioningError(f"{path} exists and is not overwritten: choose another name")


def write(path: Path, content: bytes, *, mode: int = durable_files.PUBLIC_MODE) -> None:
    """Write a whole file.

    Raises:
        ProvisioningError: the file system refuses.
    """
    try:
        durable_files.replace(path, content, mode=mode)
    except OSError as error:
        raise ProvisioningError(f"cannot write {path}: {error.strerror}") from error
