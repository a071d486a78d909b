"""What a TUF client makes of the first metadata."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import DownloadHTTPError, RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Targets, Timestamp
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from fleet_protocol.errors import ProtocolError
from provisioning import tuf_metadata
from provisioning.errors import ProvisioningError
from provisioning.layout import Authority
from tests.unit.provisioning.conftest import FAMILIES, NOW, PASSPHRASE


class FolderFetcher(FetcherInterface):
    """Serves a folder to a TUF client."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self._folder / url.removeprefix("folder:/")
        if not path.exists():
            raise DownloadHTTPError("no such file", 404)
        return iter([path.read_bytes()])


def client(folder: Path, root: bytes, cache: Path) -> Updater:
    cache.mkdir()
    return Updater(str(cache), "folder:/", fetcher=FolderFetcher(folder), bootstrap=root)


def signer_of(path: Path, passphrase: bytes | None = None) -> CryptoSigner:
    return CryptoSigner(load_pem_private_key(path.read_bytes(), passphrase))


def test_a_device_accepts_the_empty_repository(authority: Authority, tmp_path: Path) -> None:
    updater = client(authority.metadata, authority.release_root.read_bytes(), tmp_path / "cache")
    updater.refresh()
    for family in FAMILIES:
        assert updater.get_targetinfo(f"models/{family}/1.0.0/manifest.json") is None
        assert (tmp_path / "cache" / f"{family}.json").exists()


def test_a_device_refuses_a_tampered_file(authority: Authority, tmp_path: Path) -> None:
    for name in ("timestamp.json", "1.snapshot.json", "1.targets.json", "1.fashion_mnist.json"):
        served = tmp_path / f"without-{name}"
        served.mkdir()
        for path in authority.metadata.iterdir():
            (served / path.name).write_bytes(path.read_bytes())
        content = (served / name).read_text()
        (served / name).write_text(content.replace('"1.0.31"', '"1.0.30"', 1))
        assert (served / name).read_text() != content
        updater = client(served, authority.release_root.read_bytes(), tmp_path / f"cache-{name}")
        with pytest.raises(RepositoryError):
            updater.get_targetinfo("models/fashion_mnist/1.0.0/manifest.json")


@pytest.mark.parametrize(
    ("role", "lifetime"),
    [
        ("1.root.json", timedelta(days=365)),
        ("1.targets.json", timedelta(days=365)),
        ("1.fashion_mnist.json", timedelta(days=365)),
        ("1.snapshot.json", timedelta(days=7)),
        ("timestamp.json", timedelta(days=1)),
    ],
)
def test_expiries(authority: Authority, role: str, lifetime: timedelta) -> None:
    signed = Metadata.from_file(str(authority.metadata / role)).signed
    assert signed.expires == NOW + lifetime
    assert signed.version == 1


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("models/fashion_mnist/1.0.0/manifest.json", True),
        ("models/fashion_mnist/1.0.0/deep/manifest.json", False),
        ("models/fashion_mnist/manifest.json", False),
        ("models/barcodes/1.0.0/manifest.json", False),
        ("models/fashion_mnist2/1.0.0/manifest.json", False),
    ],
)
def test_a_publisher_signs_for_its_family_only(
    authority: Authority, path: str, *, allowed: bool
) -> None:
    targets = Metadata[Targets].from_file(str(authority.metadata / "1.targets.json")).signed
    assert targets.delegations is not None
    assert targets.delegations.roles is not None
    role = targets.delegations.roles["fashion_mnist"]
    assert role.is_delegated_path(path) is allowed
    assert (role.terminating, role.threshold) == (True, 1)


def test_every_role_has_a_key_of_its_own(authority: Authority) -> None:
    root = Metadata[Root].from_file(str(authority.release_root)).signed
    targets = Metadata[Targets].from_file(str(authority.metadata / "1.targets.json")).signed
    director = Metadata[Root].from_file(str(authority.director_root)).signed
    assert targets.delegations is not None
    assert targets.delegations.roles is not None
    roles = [*root.roles.values(), *targets.delegations.roles.values(), director.roles["targets"]]
    keys = [key for role in roles for key in role.keyids]
    assert len(keys) == len(set(keys)) == 4 + len(FAMILIES) + 1
    assert root.consistent_snapshot


def test_the_assignment_key_signs_assignments(authority: Authority) -> None:
    assignment = Metadata(Targets(version=3, expires=NOW + timedelta(days=1)))
    assignment.sign(signer_of(authority.signer / "assignment.pem"))
    director = Metadata[Root].from_file(str(authority.director_root)).signed
    director.verify_delegate("targets", assignment.signed_bytes, assignment.signatures)
    release = Metadata[Root].from_file(str(authority.release_root)).signed
    with pytest.raises(UnsignedMetadataError):
        release.verify_delegate("targets", assignment.signed_bytes, assignment.signatures)


def test_a_director_root_in_place_of_a_release_root_lets_nobody_publish(
    authority: Authority, tmp_path: Path
) -> None:
    root = signer_of(authority.root_key, PASSPHRASE)
    swapped = Metadata[Root].from_file(str(authority.director_root))
    swapped.signed.version = 2
    swapped.sign(root)
    served = tmp_path / "served"
    served.mkdir()
    (served / "2.root.json").write_bytes(swapped.to_bytes())
    for path in (authority.signer / "assignment.pem", authority.online / "timestamp.pem"):
        timestamp = Metadata(
            Timestamp(expires=NOW + timedelta(days=1), snapshot_meta=MetaFile(version=1))
        )
        timestamp.sign(signer_of(path))
        (served / "timestamp.json").write_bytes(timestamp.to_bytes())
        updater = client(served, authority.release_root.read_bytes(), tmp_path / path.name)
        with pytest.raises(UnsignedMetadataError):
            updater.refresh()


@pytest.mark.parametrize("name", ["root", "targets", "snapshot", "timestamp"])
def test_a_family_cannot_be_called_as_a_top_level_role(name: str) -> None:
    with pytest.raises(ProvisioningError, match=name):
        tuf_metadata.family(name)


@pytest.mark.parametrize("name", ["", "a/b", "A", "..", "x" * 65, "a\n"])
def test_a_family_must_be_a_name(name: str) -> None:
    with pytest.raises(ProtocolError):
        tuf_metadata.family(name)
