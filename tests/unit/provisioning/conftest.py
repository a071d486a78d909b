"""One authority for all tests that only read it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from provisioning import ceremony
from provisioning.layout import Authority

FAMILIES = ("fashion_mnist", "barcodes")
PASSPHRASE = b"correct horse battery"
NOW = datetime.now(UTC).replace(microsecond=0)


def plan() -> ceremony.Plan:
    return ceremony.Plan.of(families=FAMILIES, server_names=["localhost", "127.0.0.1"])


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    out = tmp_path_factory.mktemp("provisioning") / "authority"
    return ceremony.create(out, plan(), passphrase=PASSPHRASE, now=NOW)


@pytest.fixture
def passphrase_file(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_bytes(PASSPHRASE + b"\n")
    path.chmod(0o600)
    return path
