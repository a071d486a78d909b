"""`skerry provision ceremony`: holders on machines of their own pass files to each other."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Root, Targets
from typer.testing import CliRunner

from fleet_protocol.errors import SkerryError
from provisioning.cli import app

HOLDERS = ("alice", "bob", "carol")
ROLES = ("targets", "snapshot", "timestamp")


def told(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["ceremony", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: object) -> str:
    with pytest.raises(SkerryError) as error:
        told(*arguments)
    return str(error.value)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everybody's keys and a first root of which two of three holders sign, in one folder."""
    monkeypatch.chdir(tmp_path)
    for name in (*HOLDERS, *ROLES, "mallory"):
        told("key", "--out", f"{name}.pem", "--online")
    add = [f"root={name}.pub.json" for name in HOLDERS]
    add += [f"{role}={role}.pub.json" for role in ROLES]
    changes = [part for one in add for part in ("--add", one)]
    told("draft-root", "--out", "1.draft", *changes, "--threshold", "root=2")
    signed("1.draft", "1.root.json", "alice", "carol")
    return tmp_path


def sign(draft: str, name: str) -> str:
    made = f"{draft}.{name}.sig"
    told("sign", draft, "--key", f"file:{name}.pem", "--out", made, "--yes")
    return made


def signed(draft: str, out: str, *names: str) -> None:
    told("combine", draft, *(sign(draft, name) for name in names), "--out", out)


def root(path: Path) -> Metadata[Root]:
    return Metadata[Root].from_bytes(path.read_bytes())


def test_a_fleet_begins_with_two_of_three(table: Path) -> None:
    first = root(table / "1.root.json")
    assert first.signed.version == 1
    first.signed.verify_delegate("root", first.signed_bytes, first.signatures)
    add = ("--add", "fashion_mnist=mallory.pub.json")
    told("draft-targets", "--root", "1.root.json", *add, "--out", "t.draft")
    signed("t.draft", "targets.json", "targets")
    targets = Metadata[Targets].from_bytes((table / "targets.json").read_bytes())
    assert targets.signed.version == 1
    first.signed.verify_delegate("targets", targets.signed_bytes, targets.signatures)
    assert "adds key" in told("draft-root", "--repository", "director", "--out", "d.draft",
        "--add", "root=alice.pub.json", "--add", "assignment=snapshot.pub.json")  # fmt: skip


def test_a_lost_key_is_replaced_by_those_who_are_left(table: Path) -> None:
    lost = next(keyid for keyid in root(table / "1.root.json").signed.roles["root"].keyids
        if keyid in (table / "bob.pub.json").read_text())  # fmt: skip
    change = ("--add", "root=mallory.pub.json", "--remove", f"root={lost[:8]}")
    told("draft-root", "--base", "1.root.json", *change, "--out", "2.draft")
    signed("2.draft", "2.root.json", "alice", "carol")
    old, new = root(table / "1.root.json"), root(table / "2.root.json")
    for trusted in (old, new):
        trusted.signed.verify_delegate("root", new.signed_bytes, new.signatures)
    assert (new.signed.version, lost in new.signed.keys) == (2, False)


def forged(table: Path) -> str:
    made = json.loads((table / sign("1.draft", "bob")).read_text())
    made["signature"] = made["signature"][::-1]
    (table / "forged.sig").write_text(json.dumps(made))
    return "forged.sig"


def renewed(_table: Path) -> str:
    told("draft-root", "--base", "1.root.json", "--out", "2.draft")
    return sign("2.draft", "bob")


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        pytest.param(lambda _: "1.draft.alice.sig", "signed twice", id="one holder twice"),
        pytest.param(forged, "does not verify", id="a forged signature"),
        pytest.param(renewed, "on another draft", id="a signature on another draft"),
        pytest.param(lambda _: "1.draft", "no signature of", id="no signature at all"),
    ],
)
def test_what_does_not_count(table: Path, second: Callable[[Path], str], sentence: str) -> None:
    files = ("1.draft.alice.sig", second(table))
    assert sentence in refused("combine", "1.draft", *files, "--out", "x.root.json")
    assert "1 missing" in refused("combine", "1.draft", files[0], "--out", "x.root.json")
    assert not (table / "x.root.json").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--threshold", "root=4"), "would need 4 of 3 keys"),
        (("--remove", "root=zz"), "0 keys of root begin with 'zz'"),
        (("--add", "root=alice.pub.json"), "already"),
        (("--add", "root=snapshot.pub.json"), "offline and snapshot online"),
        (("--add", "mascot=bob.pub.json"), "no role 'mascot'"),
        (("--add", "root"), "use NAME=VALUE"),
        (("--add", "root=1.draft"), "no public key"),
    ],
)
def test_what_is_not_even_drafted(table: Path, arguments: tuple[str, str], sentence: str) -> None:
    assert sentence in refused("draft-root", "--base", "1.root.json", *arguments, "--out", "x")
    assert not (table / "x").exists()


def test_a_draft_that_names_a_key_without_having_it_is_refused(table: Path) -> None:
    draft = json.loads((table / "1.draft").read_text())
    metadata = json.loads(draft["metadata"])
    metadata["signed"]["roles"]["root"]["keyids"].append("a" * 64)
    (table / "1.draft").write_text(json.dumps(draft | {"metadata": json.dumps(metadata)}))
    assert "names the key aaaa" in refused("show", "1.draft")


@pytest.mark.usefixtures("table")
def test_a_stranger_may_not_sign() -> None:
    assert "may not sign" in refused("sign", "1.draft", "--key", "file:mallory.pem", "--yes")


@pytest.mark.parametrize(("publisher", "cautioned"), [("bob", False), ("mallory", True)])
@pytest.mark.usefixtures("table")
def test_a_list_that_only_looks_unchanged_is_told(publisher: str, *, cautioned: bool) -> None:
    told("draft-targets", "--root", "1.root.json", "--add", f"cats={publisher}.pub.json",
        "--out", "theirs")  # fmt: skip
    told("draft-list", "cats", "--targets", "theirs", "--out", "1.list")
    signed("1.list", "1.cats.json", publisher)
    told("draft-targets", "--root", "1.root.json", "--add", "cats=bob.pub.json", "--out", "ours")
    told("draft-list", "cats", "--targets", "ours", "--base", "1.cats.json", "--out", "2.list")
    assert ("CAUTION" in told("show", "2.list")) is cautioned
