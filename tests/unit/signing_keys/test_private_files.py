"""Secrets that others on the machine may read are refused, with what to do."""

import os
import stat
from pathlib import Path

import pytest

from provisioning import key_files
from provisioning.errors import ProvisioningError
from signing_keys import key_file, passphrases, private_files, token_files
from signing_keys.errors import SigningKeyError


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o610, 0o660])
def test_files_that_others_may_open_are_refused(tmp_path: Path, mode: int) -> None:
    passphrase, key, token = (tmp_path / name for name in ("passphrase", "key.pem", "token"))
    passphrase.write_text("correct horse battery\n")
    token.write_text("skerry_x\n")
    key.write_bytes(key_files.plain_pem(made := key_files.new_ed25519()))
    for path in (passphrase, key, token):
        path.chmod(mode)
    for refused in (
        lambda: passphrases.from_file(passphrase),
        lambda: key_file.load(key, None),
        lambda: key_files.load_p256(key, None),
        lambda: token_files.read(token),
    ):
        with pytest.raises((SigningKeyError, ProvisioningError), match="chmod 600") as raised:
            refused()
        assert f"mode {mode:04o}" in str(raised.value)
    for path in (passphrase, key, token):
        path.chmod(0o600)
    assert passphrases.from_file(passphrase) == "correct horse battery"
    assert token_files.read(token) == "skerry_x"
    assert key_file.load(key, None).public_key.keyid == key_file.public_of(made).keyid


def test_whose_file_it_is_not_decides_nothing_and_pipes_have_no_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with ssh: a secret that somebody mounts here has the mode that they gave it."""
    path = tmp_path / "mounted"
    path.write_text("secret")
    path.chmod(0o444)
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    assert private_files.read(path, "key") == b"secret"
    monkeypatch.undo()
    reading, writing = os.pipe()
    os.write(writing, b"piped")
    os.close(writing)
    assert stat.S_ISFIFO(os.fstat(reading).st_mode)
    assert private_files.read(Path(f"/dev/fd/{reading}"), "key") == b"piped"
    os.close(reading)


def test_a_new_secret_is_its_owners_alone_and_takes_nobodys_place(tmp_path: Path) -> None:
    path, taken = tmp_path / "new", tmp_path / "taken"
    with private_files.new(path, "token") as file:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        file.write(b"secret")
    assert path.read_bytes() == b"secret"
    taken.write_bytes(b"in use")
    with pytest.raises(SigningKeyError, match="exists"), private_files.new(taken, "token"):
        pytest.fail("no secret is made")
    assert taken.read_bytes() == b"in use"
    for absent in (tmp_path / "no" / "such", tmp_path / "interrupted"):
        with pytest.raises((SigningKeyError, KeyboardInterrupt)):  # noqa: SIM117 (the block is what fails)
            with private_files.new(absent, "token"):
                raise KeyboardInterrupt
        assert not absent.exists()
