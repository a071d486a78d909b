"""Secrets for commands of `skerry fleet`: from a file, a terminal or a pipe, never an argument.

Arguments stand in process listings and shell histories.
"""

import getpass
import sys
from pathlib import Path

from fleet_server.errors import FleetError
from signing_keys import passphrases

_MAX_LINE = 8192


def secret(what: str, file: Path | None, *, option: str, confirmed: bool = False) -> str:
    """Return a secret from its file, else from the terminal, else the next line of a pipe.

    Args:
        what: it is, for the prompt.
        file: that holds it.
        option: that names the file, for messages.
        confirmed: a person types it twice.

    Raises:
        FleetError: there is none, or the two that were typed differ.
        SigningKeyError: the file cannot be read, or others may open it.
    """
    if file is not None:
        return passphrases.from_file(file)
    if not sys.stdin.isatty():
        given = sys.stdin.readline(_MAX_LINE).rstrip("\r\n")
    else:
        given = getpass.getpass(f"{what}: ")
        if confirmed and getpass.getpass("Repeat for confirmation: ") != given:
            raise FleetError("the two differ; nothing was done, try again")
    if not given:
        raise FleetError(
            f"no {what.lower()} was given: type it, pipe it in as a line, or name a file that "
            f"holds it with {option}"
        )
    return given
