"""Passphrases and PINs: from a file or from a terminal, never an argument.

Arguments and environment stand in process listings and shell histories; the name of a file does no
harm there.
"""

import getpass
import sys
from pathlib import Path

from signing_keys import private_files
from signing_keys.errors import SigningKeyError

MIN_LENGTH = 8
MAX_LENGTH = 1024
FILE_VARIABLE = "SKERRY_PASSPHRASE_FILE"
PIN_VARIABLE = "SKERRY_PIN_FILE"

_PIN = "pin"
"""The name by which securesystemslib's signer of PKCS#11 asks for the PIN."""


class Secrets:
    """Answers the signers of securesystemslib, which ask for a secret by its name.

    Each secret is read or asked for once.
    """

    def __init__(
        self, *, passphrase_file: Path | None = None, pin_file: Path | None = None
    ) -> None:
        """Take the files of the passphrase of key files and of the PIN of the hardware token.

        Without a file a person is asked.
        """
        self._passphrase_file = passphrase_file
        self._pin_file = pin_file
        self._known: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        """Return the secret of a name.

        Raises:
            SigningKeyError: the file is not usable, or there is nobody to ask.
        """
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    def _read(self, name: str) -> str:
        file = self._pin_file if name == _PIN else self._passphrase_file
        if file is not None:
            return from_file(file)
        if name == _PIN:
            return _asked("PIN of the token", f"--pin-file or in {PIN_VARIABLE}")
        return _asked(name[:1].upper() + name[1:])


def chosen(file: Path | None, prompt: str = "Passphrase for the new offline keys") -> bytes:
    """Return a passphrase for new keys; a person types it twice.

    Raises:
        SigningKeyError: it is too short, the file is not usable, or there is nobody to ask.
    """
    typed = from_file(file) if file else _asked_twice(prompt)
    if len(typed) < MIN_LENGTH:
        raise SigningKeyError(
            f"the passphrase has {len(typed)} characters, it needs at least {MIN_LENGTH}: it is "
            "all that protects the offline keys of a stolen disk; several random words are good"
        )
    return typed.encode()


def known(file: Path | None, prompt: str = "Passphrase of the offline keys") -> bytes:
    """Return the passphrase of keys that exist.

    Raises:
        SigningKeyError: the file is not usable, or there is nobody to ask.
    """
    return (from_file(file) if file else _asked(prompt)).encode()


def from_file(path: Path) -> str:
    """Return the only line of a file.

    Raises:
        SigningKeyError: the file cannot be read, others may open it, or it is not one line of text.
    """
    try:
        text = private_files.read(path, "passphrase file", max_bytes=MAX_LENGTH + 2).decode()
    except UnicodeDecodeError as error:
        raise SigningKeyError(f"cannot read the passphrase file {path}: {error}") from error
    line = text.removesuffix("\n").removesuffix("\r")
    if not line or len(line) > MAX_LENGTH or not line.isprintable():
        raise SigningKeyError(
            f"the passphrase file {path} must hold one line of 1 to {MAX_LENGTH} characters"
        )
    return line


def _asked_twice(prompt: str) -> str:
    while True:
        typed = _asked(prompt)
        if _asked("Repeat for confirmation") == typed:
            return typed
        sys.stderr.write("The two differ; once more.\n")


def _asked(prompt: str, option: str = f"--passphrase-file or in {FILE_VARIABLE}") -> str:
    if not sys.stdin.isatty():
        raise SigningKeyError(
            "a passphrase or PIN is needed and there is no terminal to ask on: give a file that "
            f"holds it with {option}"
        )
    return getpass.getpass(f"{prompt}: ")
