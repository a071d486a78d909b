"""The threat model points at tests that exist, and leaves no key out."""

import importlib
import re
from pathlib import Path

import pytest

from tests.attacks.attack import Attack
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
    rows.remove("| attack | holds | test | event |")
    bare = [row for row in rows if "::" not in row and "shown by" not in row]
    assert bare == []
    assert len(POINTERS) > 60


_ROW = re.compile(
    r"^\| (?P<attack>[^|]+) \| (?P<holds>[^|]+) \| `(?P<file>[^`]+)::(?P<function>\w+)"
    r"(?:\[(?P<case>[^`]+)\])?` \| (?P<event>[^|]+) \|$",
    re.MULTILINE,
)
_SECTION = TEXT.partition("## The attacks")[2].partition("## Keys")[0]
ATTACKS = [found.groupdict() for found in _ROW.finditer(_SECTION)]


def test_the_table_of_attacks_is_read_whole() -> None:
    rows = [line for line in _SECTION.splitlines() if line.startswith("| ")]
    assert len(ATTACKS) == len(rows) - 1 > 25


@pytest.mark.parametrize("row", ATTACKS, ids=lambda row: row["attack"])
def test_an_attack_is_what_its_test_does(row: dict[str, str]) -> None:
    """What the attacker holds and what the operator reads are those of the test."""
    module = importlib.import_module(row["file"].removesuffix(".py").replace("/", "."))
    kind, _, sentence = row["event"].partition(": ")
    case = getattr(module, "ATTACKS", {}).get(row["case"])
    if isinstance(case, Attack):
        assert kind.strip("`") == case.seen[0]
        assert re.search(case.seen[1], sentence), case.seen
        assert set(re.findall("`([^`]+)`", row["holds"])) == case.holds
    elif kind.startswith("`"):
        source = (ROOT / row["file"]).read_text()
        assert f"EventKind.{kind.strip('`').upper()}" in source
        assert any(part in source for part in re.split(r" \d{5} ", sentence))


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
