"""An authority is whole or not there, and its keys are as private as they should be."""

import fcntl
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from provisioning import ceremony, certificates
from provisioning.errors import ProvisioningError
from provisioning.layout import Authority
from tests.unit.provisioning.conftest import NOW, PASSPHRASE, plan

FILES = {
    *(f"offline/{name}.pem" for name in ("root", "targets", "claim", "fleet-ca")),
    *(f"offline/publisher-{family}.pem" for family in ("fashion_mnist", "barcodes")),
    *(
        f"public/{name}"
        for name in ("release-root.json", "director-root.json", "targets.json", "fleet-ca.crt")
    ),
    *(f"server/online/{name}.pem" for name in ("snapshot", "timestamp", "device-ca", "tls")),
    *(f"server/online/{name}.crt" for name in ("device-ca", "tls", "fleet-ca", "ingest")),
    *("server/online/ingest.pem", "server/online/claim.pub.pem", "server/signer/assignment.pem"),
    *(f"server/repository/metadata/1.{role}.json" for role in ("root", "targets", "snapshot")),
    *(f"server/repository/metadata/1.{role}.json" for role in ("fashion_mnist", "barcodes")),
    *("server/repository/metadata/timestamp.json", "server/director/1.root.json"),
}


def files_of(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_layout_and_modes(authority: Authority) -> None:
    assert files_of(authority.root) == FILES
    assert authority.targets.is_dir()
    for path in [authority.root, *authority.root.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir():
            assert mode == 0o700
        elif path.suffix == ".pem" and path.name != "claim.pub.pem":
            assert mode == 0o600


@pytest.mark.parametrize("name", sorted(path for path in FILES if path.startswith("offline/")))
def test_offline_keys_open_with_the_passphrase_only(authority: Authority, name: str) -> None:
    pem = (authority.root / name).read_bytes()
    load_pem_private_key(pem, PASSPHRASE)
    with pytest.raises(ValueError, match=r"."):
        load_pem_private_key(pem, PASSPHRASE + b"!")
    with pytest.raises(TypeError):
        load_pem_private_key(pem, None)


def test_a_directory_in_use_is_not_touched(tmp_path: Path) -> None:
    out = tmp_path / "authority"
    out.mkdir()
    (out / "something").write_text("mine")
    with pytest.raises(ProvisioningError, match="not empty"):
        ceremony.create(out, plan(), passphrase=PASSPHRASE, now=NOW)
    assert files_of(tmp_path) == {"authority/something"}


def test_a_file_or_a_link_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("file", "link"):
        with pytest.raises(ProvisioningError, match="not a directory"):
            ceremony.create(tmp_path / name, plan(), passphrase=PASSPHRASE, now=NOW)


def test_an_empty_directory_is_used(tmp_path: Path) -> None:
    (tmp_path / "authority").mkdir()
    ceremony.create(tmp_path / "authority", plan(), passphrase=PASSPHRASE, now=NOW)
    assert files_of(tmp_path / "authority") == FILES


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(certificates, "ingest_certificate", disk_full)
    with pytest.raises(ProvisioningError, match="No space left"):
        ceremony.create(tmp_path / "authority", plan(), passphrase=PASSPHRASE, now=NOW)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_attempt_left_is_cleared(tmp_path: Path) -> None:
    partial = tmp_path / ".authority.partial"
    (partial / "offline").mkdir(parents=True)
    (partial / "offline" / "root.pem").write_text("half a key")
    (partial / "link").symlink_to(tmp_path)
    ceremony.create(tmp_path / "authority", plan(), passphrase=PASSPHRASE, now=NOW)
    assert [path.name for path in tmp_path.iterdir()] == ["authority"]
    assert files_of(tmp_path / "authority") == FILES


def test_two_attempts_at_once(tmp_path: Path) -> None:
    partial = tmp_path / ".authority.partial"
    partial.mkdir()
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(ProvisioningError, match="another process"):
            ceremony.create(tmp_path / "authority", plan(), passphrase=PASSPHRASE, now=NOW)
    finally:
        os.close(descriptor)
    assert list(partial.iterdir()) == []


def test_a_family_is_needed() -> None:
    with pytest.raises(ProvisioningError, match="--family"):
        ceremony.Plan.of(families=[], server_names=["localhost"])


def test_a_family_named_twice_is_one() -> None:
    assert ceremony.Plan.of(families=["a", "a"], server_names=["localhost"]).families == ["a"]
