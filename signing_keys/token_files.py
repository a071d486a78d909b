"""Files of API tokens, guarded like a passphrase's: a token acts for whoever it was made for."""

from pathlib import Path

from signing_keys import private_files
from signing_keys.errors import SigningKeyError

_MAX_BYTES = 4096


def read(path: Path) -> str:
    """Return the one token of a file.

    Raises:
        SigningKeyError: the file cannot be read, others may open it, or it holds no single token.
    """
    try:
        token = private_files.read(path, "token file", max_bytes=_MAX_BYTES).decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise SigningKeyError(f"cannot read the token file {path}: {error}") from error
    if not token or not token.isprintable() or " " in token:
        raise SigningKeyError(
            f"the token file {path} must hold one token: make one with `skerry server token --out`"
        )
    return token
