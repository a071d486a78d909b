"""`skerry provision` as a person calls it."""

import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Targets
from typer.testing import CliRunner, Result

from fleet_protocol import claims
from fleet_protocol.errors import SkerryError
from model_pipeline import publisher_key
from provisioning.cli import app
from provisioning.layout import Authority
from tests.unit.provisioning.conftest import PASSPHRASE

FAMILY = ("--family", "fashion_mnist")
NAME = ("--server-name", "localhost")


def run(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def refusal(result: Result) -> str:
    assert isinstance(result.exception, SkerryError)
    return str(result.exception)


def test_init_says_what_to_do_next(tmp_path: Path, passphrase_file: Path) -> None:
    out = tmp_path / "authority"
    result = run("init", "--out", out, *FAMILY, *NAME, "--passphrase-file", passphrase_file)
    assert result.exit_code == 0
    assert str(out / "server") in result.stdout


def test_init_makes_several_keys_of_which_some_must_sign(
    tmp_path: Path, passphrase_file: Path
) -> None:
    out = Authority(tmp_path / "authority")
    quorums = ("--root-keys", 3, "--targets-keys", 2, "--targets-threshold", 1)
    publishers = ("--publisher-keys", 2)
    secret = ("--passphrase-file", passphrase_file)
    result = run("init", "--out", out.root, *FAMILY, *NAME, *quorums, *publishers, *secret)
    assert result.exit_code == 0, result.exception
    for path in (out.release_root, out.director_root):
        metadata = Metadata[Root].from_bytes(path.read_bytes())
        role = metadata.signed.roles["root"]
        assert (len(role.keyids), role.threshold) == (3, 2)
        metadata.signed.verify_delegate("root", metadata.signed_bytes, metadata.signatures)
    root = Metadata[Root].from_bytes(out.release_root.read_bytes()).signed
    targets = Metadata[Targets].from_bytes(out.published_targets.read_bytes())
    root.verify_delegate("targets", targets.signed_bytes, targets.signatures)
    delegations = targets.signed.delegations
    assert (len(root.roles["targets"].keyids), root.roles["targets"].threshold) == (2, 1)
    assert [one.threshold for one in ((delegations and delegations.roles) or {}).values()] == [2]
    names = sorted(path.name for path in out.offline.glob("root*"))
    assert names == ["root.1.pem", "root.2.pem", "root.3.pem"]
    pem = out.root_key.with_name(names[2]).read_bytes()
    assert CryptoSigner(load_pem_private_key(pem, PASSPHRASE)).public_key.keyid in root.keys
    assert len(publisher_key.default_uris(out.root, FAMILY[1])) == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--root-keys", 0), "--root-keys 0: use 1 to 16"),
        (("--root-keys", 99), "--root-keys 99: use 1 to 16"),
        (("--root-threshold", 2), "root has 1 keys; use 1 to 1"),
        (("--targets-keys", 2, "--targets-threshold", 0), "--targets-threshold 0"),
    ],
)
def test_a_quorum_that_nobody_reaches(
    tmp_path: Path, passphrase_file: Path, options: tuple[object, ...], sentence: str
) -> None:
    out = tmp_path / "authority"
    arguments = ("--out", out, *FAMILY, *NAME, "--passphrase-file", passphrase_file)
    assert sentence in refusal(run("init", *arguments, *options))
    assert not out.exists()


def test_the_passphrase_file_may_come_from_the_environment(
    tmp_path: Path, passphrase_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKERRY_PASSPHRASE_FILE", str(passphrase_file))
    assert run("init", "--out", tmp_path / "authority", *FAMILY, *NAME).exit_code == 0


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"short\n", "at least 8"),
        (b"", "one line"),
        (b"\n", "one line"),
        (b"two lines\nof text\n", "one line"),
        (b"x" * 2000, "one line"),
        (b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8", "cannot read"),
        (b"null\0byte\0here", "one line"),
    ],
)
def test_bad_passphrases(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "passphrase").write_bytes(content)
    (tmp_path / "passphrase").chmod(0o600)
    out = tmp_path / "authority"
    arguments = ("--passphrase-file", tmp_path / "passphrase")
    assert sentence in refusal(run("init", "--out", out, *FAMILY, *NAME, *arguments))
    assert not out.exists()


def test_without_a_terminal_nobody_is_asked(tmp_path: Path) -> None:
    result = run("init", "--out", tmp_path / "authority", *FAMILY, *NAME, stdin="typed\ntyped\n")
    assert "--passphrase-file" in refusal(result)


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_line_end_is_no_part_of_the_passphrase(
    authority: Authority, tmp_path: Path, ending: str
) -> None:
    (tmp_path / "passphrase").write_bytes(b"correct horse battery" + ending.encode())
    (tmp_path / "passphrase").chmod(0o600)
    result = run(
        *("claim", "--authority", authority.root, "--device", "cam-01"),
        *("--out", tmp_path / "claim.json", "--passphrase-file", tmp_path / "passphrase"),
    )
    assert result.exit_code == 0


def claim(authority: Authority, passphrase_file: Path, *arguments: object) -> Result:
    given = ("--authority", authority.root, "--passphrase-file", passphrase_file)
    return run("claim", *given, *arguments)


def test_one_claim(authority: Authority, passphrase_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "claim.json"
    result = claim(authority, passphrase_file, "--device", "cam-01", "--out", out, "--floor", "a=2")
    assert result.exit_code == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert claims.decode(out.read_bytes()).floors == {"a": 2}


def test_several_claims(authority: Authority, passphrase_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "claims"
    devices = ("--device", "cam-01", "--device", "cam-02", "--device", "cam-01")
    assert claim(authority, passphrase_file, *devices, "--out", out).exit_code == 0
    found = {path.name: claims.decode(path.read_bytes()).device_id for path in out.iterdir()}
    assert found == {"cam-01.json": "cam-01", "cam-02.json": "cam-02"}


def test_a_claim_is_not_overwritten(
    authority: Authority, passphrase_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "claims"
    out.mkdir()
    (out / "cam-02.json").write_text("carried away already")
    devices = ("--device", "cam-01", "--device", "cam-02")
    assert "overwritten" in refusal(claim(authority, passphrase_file, *devices, "--out", out))
    assert [path.name for path in out.iterdir()] == ["cam-02.json"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--expires", "week"), "--expires"),
        (("--expires", "0d"), "--expires"),
        (("--expires", "366d"), "365d"),
        (("--expires", "-1d"), "--expires"),
        (("--expires", "999999999d"), "--expires"),
        (("--floor", "a"), "FAMILY=NUMBER"),
        (("--floor", "a=b"), "FAMILY=NUMBER"),
        (("--floor", "a=1", "--floor", "a=2"), "once"),
        (("--floor", "A=1"), "not a claim bundle"),
        (("--floor", "a=9999999999"), "not a claim bundle"),
    ],
)
def test_bad_claim_options(
    authority: Authority,
    passphrase_file: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    sentence: str,
) -> None:
    out = tmp_path / "claim.json"
    result = claim(authority, passphrase_file, "--device", "cam-01", "--out", out, *arguments)
    assert sentence in refusal(result)
    assert not out.exists()


def test_claims_of_no_authority(passphrase_file: Path, tmp_path: Path) -> None:
    empty = Authority(tmp_path)
    result = claim(empty, passphrase_file, "--device", "cam-01", "--out", tmp_path / "c.json")
    assert "skerry provision init" in refusal(result)


def test_show_as_json(authority: Authority) -> None:
    result = run("show", authority.root, "--json")
    found = json.loads(result.stdout)
    encrypted = {key["file"]: key["encrypted"] for key in found["keys"]}
    assert encrypted["offline/root.pem"] is True
    assert encrypted["server/online/tls.pem"] is False
    roles = {(role["repository"], role["role"]): role for role in found["roles"]}
    assert roles["release", "fashion_mnist"]["paths"] == ["models/fashion_mnist/*/*"]
    assert roles["release", "timestamp"]["expired"] is False
    assert roles["director", "targets"]["keys"]
    names = {item["file"]: item["names"] for item in found["certificates"]}
    assert names["server/online/tls.crt"] == ["localhost", "127.0.0.1"]


def test_show_for_people(authority: Authority) -> None:
    result = run("show", authority.root)
    assert result.exit_code == 0
    assert "root" in result.stdout


def test_show_without_the_server_part(authority: Authority, tmp_path: Path) -> None:
    moved = tmp_path / "authority"
    moved.mkdir()
    for part in ("offline", "public"):
        (moved / part).symlink_to(authority.root / part)
    found = json.loads(run("show", moved, "--json").stdout)
    versions = {role["role"]: role.get("version") for role in found["roles"]}
    assert versions["root"] == 1
    assert versions["timestamp"] is None


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("public/release-root.json", b"{}"),
        ("public/release-root.json", b'{"signed": {"_type": "timestamp"}, "signatures": []}'),
        ("public/fleet-ca.crt", b"no certificate"),
    ],
)
def test_show_of_damaged_files(
    authority: Authority, tmp_path: Path, file: str, content: bytes
) -> None:
    (tmp_path / "public").mkdir()
    for path in authority.public.iterdir():
        (tmp_path / "public" / path.name).write_bytes(path.read_bytes())
    (tmp_path / file).write_bytes(content)
    assert str(tmp_path / file) in refusal(run("show", tmp_path))


def test_show_of_no_authority(tmp_path: Path) -> None:
    assert "not an authority" in refusal(run("show", tmp_path))
