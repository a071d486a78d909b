"""Options that several commands of a key ceremony have."""

from pathlib import Path
from typing import Annotated

import typer

from signing_keys import passphrases

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        envvar=passphrases.FILE_VARIABLE,
        help="File whose only line is the key's passphrase; asked for without it.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Out = Annotated[Path, typer.Option(help="File to write; it must not exist.")]
PinFile = Annotated[
    Path | None,
    typer.Option(envvar=passphrases.PIN_VARIABLE, help="File with the PIN of the token."),
]
