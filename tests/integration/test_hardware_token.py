"""A key that never leaves its token takes part in a ceremony: SoftHSM2 over PKCS#11."""

import subprocess
from pathlib import Path

import pkcs11
import pytest
from pkcs11.util.ec import encode_named_curve_parameters
from tuf.api.metadata import Metadata, Root
from typer.testing import CliRunner

from fleet_protocol.errors import SkerryError
from provisioning.cli import app

LIBRARY = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "482913"
KEY = "hsm:2?label=alice"


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a token with one key and return the file of its PIN."""
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path / 'tokens'}\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm2.conf"))
    monkeypatch.setenv("PYKCS11LIB", LIBRARY)
    new = ("--init-token", "--free", "--label", "alice", "--pin", PIN, "--so-pin", PIN)
    subprocess.run(["softhsm2-util", *new], check=True, capture_output=True)  # noqa: S607
    with pkcs11.lib(LIBRARY).get_token(token_label="alice").open(rw=True, user_pin=PIN) as session:
        curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
        domain = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
        domain.generate_keypair(store=True, id=b"\x02", label="alice")
    (tmp_path / "pin").write_text(PIN)
    return tmp_path / "pin"


def told(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["ceremony", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_token_signs_a_root_beside_a_key_file(
    token: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pin = ("--pin-file", token)
    told("key", "--of", KEY, "--out", "alice", *pin)
    add = ["--add", "root=alice.pub.json"]
    for name in ("root", "targets", "snapshot", "timestamp"):
        told("key", "--out", f"{name}.pem", "--online")
        add += ["--add", f"{name}={name}.pub.json"]
    told("draft-root", *add, "--threshold", "root=2", "--out", "1.draft")
    told("sign", "1.draft", "--key", KEY, "--out", "alice.sig", "--yes", *pin)
    told("sign", "1.draft", "--key", "file:root.pem", "--out", "root.sig", "--yes")
    told("combine", "1.draft", "alice.sig", "root.sig", "--out", "1.root.json")
    root = Metadata[Root].from_bytes((tmp_path / "1.root.json").read_bytes())
    root.signed.verify_delegate("root", root.signed_bytes, root.signatures)

    (tmp_path / "wrong").write_text("000000")
    for key, file in ((KEY, "wrong"), ("hsm:9?label=alice", "pin"), ("hsm:2?label=bob", "pin")):
        with pytest.raises(SkerryError, match="cannot use the signing key"):
            told("sign", "1.draft", "--key", key, "--yes", "--pin-file", file)
    assert not list(tmp_path.glob("1.draft.*.sig"))
