"""Opens the publisher's key, the encrypted file of the authority.

Apart from `provisioning` on purpose: who publishes needs neither its code nor its other keys.
"""

import sys
from pathlib import Path

import typer
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

from model_pipeline.errors import PipelineError

FILE_VARIABLE = "SKERRY_PASSPHRASE_FILE"
_MAX_PASSPHRASE_BYTES = 4096


def passphrase(file: Path | None) -> bytes:
    """Return the only line of a file, or what a person types on the terminal.

    Raises:
        PipelineError: the file cannot be read or is empty, or there is nobody to ask.
    """
    if file is not None:
        try:
            with file.open("rb") as opened:
                line = opened.read(_MAX_PASSPHRASE_BYTES).removesuffix(b"\n").removesuffix(b"\r")
        except OSError as error:
            raise PipelineError(f"cannot read the passphrase file {file}: {error}") from error
        if not line:
            raise PipelineError(f"the passphrase file {file} is empty")
        return line
    if not sys.stdin.isatty():
        raise PipelineError(
            "the publisher's key needs its passphrase and there is no terminal to ask on: give a "
            f"file that holds it with --passphrase-file or in {FILE_VARIABLE}"
        )
    typed: str = typer.prompt("Passphrase of the publisher's key", hide_input=True, err=True)
    return typed.encode()


def load(path: Path, secret: bytes) -> CryptoSigner:
    """Return the signer of an encrypted Ed25519 key.

    Raises:
        PipelineError: no such file, another kind of key, or the wrong passphrase.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), secret)
    except OSError as error:
        raise PipelineError(
            f"cannot read the publisher's key {path}: {error.strerror}; `skerry provision init "
            "--family` makes one for each family"
        ) from error
    except ValueError as error:
        raise PipelineError(
            f"cannot open the publisher's key {path}: the passphrase is wrong or the file damaged"
        ) from error
    except (TypeError, UnsupportedAlgorithm) as error:
        raise PipelineError(f"cannot open the publisher's key {path}: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise PipelineError(f"{path} is no publisher's key: it is not Ed25519")
    return CryptoSigner(key)
