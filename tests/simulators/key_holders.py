"""People with keys on machines of their own: folders between which only files are carried."""

import shutil
from pathlib import Path

from tuf.api.metadata import Metadata, Root
from typer.testing import CliRunner, Result

from fleet_protocol.errors import SkerryError
from provisioning.cli import app
from provisioning.layout import Authority


def ceremony(*arguments: object) -> Result:
    """Run a command of `skerry provision ceremony`."""
    return CliRunner().invoke(app, ["ceremony", *(str(argument) for argument in arguments)])


def done(*arguments: object) -> str:
    """Run a command that must succeed and return what it says."""
    result = ceremony(*arguments)
    assert result.exit_code == 0, (result.exception, result.output)
    return result.stdout


def refused(*arguments: object) -> str:
    """Run a command that must be refused, with one of our errors, and return its sentence."""
    result = ceremony(*arguments)
    assert result.exit_code != 0
    assert isinstance(result.exception, SkerryError), (result.exception, result.output)
    return str(result.exception)


class Holder:
    """One person: a folder with a key."""

    def __init__(self, folder: Path, *, passphrase_file: Path | None = None) -> None:
        """Make the key, without a passphrase where none is given: those cost time."""
        self.folder = folder
        folder.mkdir()
        self.key = folder / f"{folder.name}.pem"
        self._secret = ("--passphrase-file", passphrase_file) if passphrase_file else ()
        self.public = self.key.with_suffix(".pub.json")
        done("key", "--out", self.key, *(self._secret or ("--online",)))

    def signs(self, draft: Path, *options: object) -> Path:
        """Carry a draft here, sign it and return the signature."""
        here = self.folder / draft.name
        shutil.copyfile(draft, here)
        return signature_of(here, self.key, *self._secret, *options)


def signature_of(draft: Path, key: Path, *options: object) -> Path:
    """Sign a draft with a key file and return the signature, beside the draft."""
    before = set(draft.parent.glob("*.sig"))
    done("sign", draft, "--key", f"file:{key}", "--yes", *options)
    (made,) = set(draft.parent.glob("*.sig")) - before
    return made


def keyids(authority: Authority, role: str) -> list[str]:
    """Return the ids of the keys of a role of the release root in force."""
    root = Metadata[Root].from_bytes(authority.release_root.read_bytes()).signed
    return root.roles[role].keyids


def files_below(*folders: Path) -> dict[Path, bytes]:
    """Return every file with its content."""
    return {
        path: path.read_bytes()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
    }
