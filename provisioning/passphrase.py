"""The passphrase that encrypts the offline keys: from a file or from a terminal, never an argument.

Arguments and environment stand in process listings and shell histories; the name of a file does no
harm there.
"""

import sys
from pathlib import Path

import typer

from provisioning.errors import ProvisioningError

MIN_LENGTH = 8
MAX_LENGTH = 1024
FILE_VARIABLE = "SKERRY_PASSPHRASE_FILE"


def chosen(file: Path | None) -> bytes:
    """Return a passphrase for new keys; a person types it twice.

    Raises:
        ProvisioningError: it is too short, the file is not usable, or there is nobody to ask.
    """
    typed = from_file(file) if file else _asked("Passphrase for the new offline keys", twice=True)
    if len(typed) < MIN_LENGTH:
        raise ProvisioningError(
            f"the passphrase has {len(typed)} characters, it needs at least {MIN_LENGTH}: it is "
            "all that protects the offline keys of a stolen disk; several random words are good"
        )
    return typed.encode()


def known(file: Path | None) -> bytes:
    """Return the passphrase of keys that exist.

    Raises:
        ProvisioningError: the file is not usable, or there is nobody to ask.
    """
    return (from_file(file) if file else _asked("Passphrase of the offline keys")).encode()


def from_file(path: Path) -> str:
    """Return the only line of a file.

    Raises:
        ProvisioningError: the file cannot be read or is not one line of text.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_LENGTH + 2).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ProvisioningError(f"cannot read the passphrase file {path}: {error}") from error
    line = text.removesuffix("\n").removesuffix("\r")
    if not line or len(line) > MAX_LENGTH or not line.isprintable():
        raise ProvisioningError(
            f"the passphrase file {path} must hold one line of 1 to {MAX_LENGTH} characters"
        )
    return line


def _asked(prompt: str, *, twice: bool = False) -> str:
    if not sys.stdin.isatty():
        raise ProvisioningError(
            "a passphrase is needed and there is no terminal to ask on: give a file that holds it "
            f"with --passphrase-file or in {FILE_VARIABLE}"
        )
    answer: str = typer.prompt(prompt, hide_input=True, confirmation_prompt=twice, err=True)
    return answer
