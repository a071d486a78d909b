"""The threat model points at tests that exist, and leaves no key out."""

import re
from pathlib import Path

import pytest

from tests.unit.fleet_server.authority import FAMILY, OTHER_FAMILY, Fleet

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "threat-model.md").read_text()
POINTERS = sorted(set(re.findall(r"`(tests/[^`]+\.py)::(\w+)(?:\[([^`]+)\])?`", TEXT)))
PROCESSES = (
    "API server", "Signer", "Broker and ingest", "Network and CDN", "Runtime", "Control",
    "Supervisor", "An application on the device", "Another device",
)  # fmt: skip


@pytest.mark.parametrize(("file", "function", "case"), POINTERS)
def test_every_line_points_at_a_test(file: str, function: str, case: str) -> None:
    source = (ROOT / file).read_text()
    assert re.search(rf"^(async )?def {function}\(", source, re.MULTILINE), function
    assert not case or f'"{case}"' in source, case


def test_every_row_has_a_test() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ")]
    bare = [row for row in rows if "::" not in row and "shown by" not in row]
    assert bare == []
    assert len(POINTERS) > 60


def test_every_key_and_process_is_named(tmp_path: Path) -> None:
    authority = Fleet.provision(tmp_path / "authority").authority
    keys = {
        path.name for path in authority.root.rglob("*.pem") if b"PRIVATE KEY" in path.read_bytes()
    }
    publishers = {f"publisher-{family}.pem" for family in (FAMILY, OTHER_FAMILY)}
    assert publishers <= keys
    named = keys - publishers | {"publisher-<family>.pem", "identity/key.pem"}
    assert [name for name in sorted(named) if f"`{name}`" not in TEXT] == []
    assert [name for name in PROCESSES if f"\n### {name}" not in TEXT] == []
