"""Makes an online signing key on the server, beside the one in use."""

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fleet_server.data_dir import DataDir
from fleet_server.errors import RefusedError, SetupError
from fleet_server.releases.durable_files import sync_folder
from signing_keys import key_file, public_keys


def make(root: Path, role: str) -> tuple[Path, str]:
    """Write ``<role>-<key id>.pem`` and its public half.

    Returns:
        The file of the public half and the key id.

    Raises:
        RefusedError: there is no such online role.
        SetupError: not a data directory, or it cannot be written.
    """
    data = DataDir(root)
    data.check()
    folders = {"snapshot": data.online, "timestamp": data.online, "assignment": data.signer}
    if role not in folders:
        raise RefusedError(f"{role[:40]!r} is no online role: use {', '.join(folders)}")
    private = Ed25519PrivateKey.generate()
    key = key_file.public_of(private)
    path = folders[role] / f"{role}-{key.keyid[:16]}.pem"
    public = path.with_suffix(".pub.json")
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        for file, content, mode in ((public, public_keys.encode(key), 0o644), (path, pem, 0o600)):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(content)
                opened.flush()
                os.fsync(opened.fileno())
        sync_folder(path.parent)
    except OSError as error:
        raise SetupError(f"cannot write the key below {path.parent}: {error}") from error
    return public, key.keyid
