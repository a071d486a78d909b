"""A whole ceremony as its people run it: two of three holders, and what each command refuses."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Root, Targets

from provisioning.layout import Authority
from tests.simulators.key_holders import (
    Holder,
    ceremony,
    done,
    files_below,
    keyids,
    refused,
    signature_of,
)
from tests.unit.provisioning.conftest import PASSPHRASE

FAMILY = "fashion_mnist"
NAMES = ("alice", "bob", "carol", "tara", "stranger")


@dataclass(frozen=True)
class World:
    """Three holders of root, one of targets, somebody else, and the desk where files meet."""

    folder: Path
    authority: Authority

    @property
    def desk(self) -> Path:
        return self.folder / "desk"

    def key(self, name: str) -> Path:
        return self.folder / name / f"{name}.pem"

    def public(self, name: str) -> Path:
        return self.key(name).with_suffix(".pub.json")

    def signs(self, name: str, draft: Path, *options: object) -> Path:
        here = self.folder / name / draft.name
        shutil.copyfile(draft, here)
        return signature_of(here, self.key(name), *options)

    def draft(self, *options: object, command: str = "draft-root", out: str = "draft") -> Path:
        path = self.desk / out
        done(command, "--authority", self.authority.root, *options, "--out", path)
        return path

    def signed(self, draft: Path, *names: str, out: str = "signed.json") -> Path:
        path = self.desk / out
        done("combine", draft, *(self.signs(name, draft) for name in names), "--out", path)
        return path

    def publish(self, *files: Path) -> str:
        return done("publish", *files, "--authority", self.authority.root)

    @property
    def root(self) -> Metadata[Root]:
        return Metadata[Root].from_bytes(self.authority.release_root.read_bytes())


@pytest.fixture(scope="module")
def two_of_three(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The root of `provision init` handed over to three holders, of whom two must sign."""
    folder = tmp_path_factory.mktemp("ceremony")
    secret = folder / "passphrase"
    secret.write_bytes(PASSPHRASE)
    secret.chmod(0o600)
    shutil.copytree(authority.root, folder / "authority")
    world = World(folder, Authority(folder / "authority"))
    world.desk.mkdir()
    alice = Holder(folder / "alice", passphrase_file=secret)
    for name in NAMES[1:]:
        Holder(folder / name)
    adds = [f"--add=root={world.public(name)}" for name in ("alice", "bob", "carol")]
    draft = world.draft(
        *adds,
        *("--add", f"targets={world.public('tara')}"),
        *("--remove", f"root={keyids(world.authority, 'root')[0]}"),
        *("--remove", f"targets={keyids(world.authority, 'targets')[0]}"),
        *("--threshold", "root=2"),
        out="root2.draft",
    )
    old = shutil.copyfile(draft, world.authority.root / "root2.draft")
    signatures = [
        signature_of(old, world.authority.root_key, "--passphrase-file", secret),
        alice.signs(draft, "--authority", world.authority.root),
        world.signs("bob", draft),
    ]
    targets = world.draft("--root", draft, command="draft-targets", out="targets2.draft")
    done("combine", draft, *signatures, "--out", world.desk / "2.root.json")
    made = world.signed(targets, "tara", out="2.targets.json")
    assert "Next: skerry fleet adopt" in world.publish(world.desk / "2.root.json", made)
    return world


@pytest.fixture
def world(two_of_three: World, tmp_path: Path) -> World:
    folder = shutil.copytree(two_of_three.folder, tmp_path / "world")
    return World(folder, Authority(folder / "authority"))


def test_the_new_holders_hold_it(two_of_three: World) -> None:
    root = two_of_three.root
    assert root.signed.version == 2
    assert (len(root.signed.roles["root"].keyids), root.signed.roles["root"].threshold) == (3, 2)
    root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
    assert b"ENCRYPTED" in two_of_three.key("alice").read_bytes()
    targets = Metadata[Targets].from_bytes(two_of_three.authority.published_targets.read_bytes())
    root.signed.verify_delegate("targets", targets.signed_bytes, targets.signatures)


def test_a_renewal_by_any_two(world: World) -> None:
    draft = world.draft("--days", "100")
    shown = json.loads(done("show", draft, "--json"))
    assert (shown["draft"], shown["complete"]) == ("release root 3", False)
    assert [one["who"] for one in shown["quorums"]] == ["root 2", "root 3"]
    bob = world.signs("bob", draft)
    half = json.loads(done("show", draft, bob, "--json"))
    assert [one["missing"] for one in half["quorums"]] == [1, 1]
    assert half["fingerprint"] == shown["fingerprint"]
    carol = world.signs("carol", draft)
    out = world.desk / "3.root.json"
    told = json.loads(done("combine", draft, bob, carol, "--out", out, "--json"))
    assert (told["complete"], told["written"]) == (True, str(out))
    world.publish(out)
    assert world.root.signed.version == 3
    before = files_below(world.authority.public)
    world.publish(out)
    assert files_below(world.authority.public) == before, "a repetition changes nothing"


def test_a_lost_key_is_revoked_by_the_two_others(world: World) -> None:
    lost = keyids(world.authority, "root")[0]
    draft = world.draft(
        *("--remove", f"root={lost[:8]}", "--add", f"root={world.public('stranger')}")
    )
    assert f"root: removes key {lost[:16]}" in done("show", draft)
    world.publish(world.signed(draft, "bob", "carol"))
    assert lost not in world.root.signed.keys
    following = world.draft(out="root4.draft")
    assert "may not sign" in refused(
        "sign", following, "--key", f"file:{world.key('alice')}", "--yes",
        "--passphrase-file", world.folder / "passphrase",
    )  # fmt: skip
    world.publish(world.signed(following, "stranger", "bob", out="root4.json"))


def test_new_roots_need_the_old_holders_too(world: World) -> None:
    """Whoever is named by the new root alone cannot put themselves in place of the old ones."""
    old = keyids(world.authority, "root")
    draft = world.draft(
        *(option for keyid in old for option in ("--remove", f"root={keyid}")),
        *("--add", f"root={world.public('stranger')}", "--threshold", "root=1"),
    )
    signature = world.signs("stranger", draft)
    assert "root 2: 0 of 2, 2 missing" in refused(
        "combine", draft, signature, "--out", world.desk / "signed"
    )


def test_a_publisher_s_key_is_replaced(world: World) -> None:
    before = Metadata[Targets].from_bytes(world.authority.published_targets.read_bytes()).signed
    assert before.delegations is not None
    assert before.delegations.roles is not None
    (stolen,) = before.delegations.roles[FAMILY].keyids
    targets = world.draft(
        *("--add", f"{FAMILY}={world.public('carol')}", "--remove", f"{FAMILY}={stolen}"),
        command="draft-targets",
    )
    listed = world.desk / "list.draft"
    base = world.authority.metadata / f"1.{FAMILY}.json"
    done("draft-list", FAMILY, "--base", base, "--targets", targets, "--out", listed)
    family = world.signed(listed, "carol", out="list.json")
    signed = world.signed(targets, "tara")
    world.publish(signed)
    after = Metadata[Targets].from_bytes(signed.read_bytes()).signed
    release_list = Metadata[Targets].from_bytes(family.read_bytes())
    after.verify_delegate(FAMILY, release_list.signed_bytes, release_list.signatures)
    assert release_list.signed.version == 2
    assert after.delegations is not None
    assert stolen not in after.delegations.keys
    assert "only roots and targets.json belong" in refused(
        "publish", family, "--authority", world.authority.root
    )


def changed(draft: Path, **fields: object) -> Path:
    """Return a draft in which somebody has changed something on the way."""
    told = json.loads(draft.read_text())
    metadata = json.loads(told["metadata"])
    metadata["signed"] |= fields
    path = draft.with_name("changed.draft")
    path.write_text(json.dumps(told | {"metadata": json.dumps(metadata)}))
    return path


def behind(world: World) -> Path:
    """Return the copy of a signer who missed the last ceremony."""
    copy = shutil.copytree(world.authority.root, world.folder / "bob" / "authority")
    shutil.copyfile(world.authority.metadata / "1.root.json", Authority(copy).release_root)
    return copy


def list_draft(world: World) -> Path:
    out = world.desk / "list.draft"
    base = world.authority.metadata / f"1.{FAMILY}.json"
    done("draft-list", FAMILY, "--authority", world.authority.root, "--base", base, "--out", out)
    return out


def two_signatures_of_bob(world: World, draft: Path) -> Sequence[object]:
    signature = world.signs("bob", draft)
    again = shutil.copyfile(signature, world.desk / "again.sig")
    return ("combine", draft, signature, again, "--out", world.desk / "refused")


def skipped(world: World, draft: Path) -> Sequence[object]:
    third = world.signed(draft, "bob", "carol", out="3.root.json")
    fourth = world.desk / "root4.draft"
    done("draft-root", "--base", third, "--out", fourth)
    signed = world.signed(fourth, "bob", "carol", out="4.root.json")
    return ("publish", signed, "--authority", world.authority.root)


def another_third(world: World, draft: Path) -> Sequence[object]:
    other = world.draft("--days", "99", out="other.draft")
    world.publish(world.signed(draft, "bob", "carol", out="3.root.json"))
    signed = world.signed(other, "bob", "carol")
    return ("publish", signed, "--authority", world.authority.root)


def orphaned_targets(world: World, _draft: Path) -> Sequence[object]:
    """Return a root that revokes who signed the targets, published without new ones."""
    draft = world.draft(
        *("--add", f"targets={world.public('stranger')}"),
        *("--remove", f"targets={keyids(world.authority, 'targets')[0]}"),
        out="root3.draft",
    )
    signed = world.signed(draft, "bob", "carol", out="3.root.json")
    return ("publish", signed, "--authority", world.authority.root)


def signing(world: World, draft: Path, *options: object, key: str = "bob") -> Sequence[object]:
    return ("sign", draft, "--key", f"file:{world.key(key)}", *options)


def drafting(world: World, *options: object, out: str = "refused") -> Sequence[object]:
    return (
        *("draft-root", "--authority", world.authority.root),
        *("--out", world.desk / out, *options),
    )


REFUSED: dict[str, tuple[Callable[[World, Path], Sequence[object]], str]] = {
    "one holder twice": (two_signatures_of_bob, "signed twice"),
    "one holder alone": (
        lambda world, draft: (
            *("combine", draft, world.signs("bob", draft)),
            *("--out", world.desk / "refused"),
        ),
        "root 2: 1 of 2, 1 missing",
    ),
    "a key that no role names": (
        lambda world, draft: signing(world, draft, "--yes", key="stranger"),
        "may not sign",
    ),
    "a key that is not there": (
        lambda _world, draft: ("sign", draft, "--key", "file:/nowhere.pem", "--yes"),
        "cannot read the key /nowhere.pem",
    ),
    "nobody to agree": (signing, "say --yes"),
    "a signer who trusts another root": (
        lambda world, draft: signing(world, draft, "--yes", "--authority", behind(world)),
        "which you trust",
    ),
    "a list for whoever compares roots": (
        lambda world, _draft: signing(
            world, list_draft(world), "--yes", "--authority", world.authority.root
        ),
        "keeps no list",
    ),
    "a threshold that nobody reaches": (
        lambda world, _draft: drafting(world, "--threshold", "root=4"),
        "would need 4 of 3 keys",
    ),
    "a threshold of nobody": (
        lambda world, _draft: drafting(world, "--threshold", "root=0"),
        "would need 0 of 3 keys",
    ),
    "two keys for what one server signs": (
        lambda world, _draft: drafting(
            world,
            *("--add", f"timestamp={world.public('stranger')}", "--threshold", "timestamp=2"),
        ),
        "signed online by one key",
    ),
    "a private key for a public one": (
        lambda world, _draft: drafting(world, "--add", f"root={world.key('bob')}"),
        "no public key of",
    ),
    "a file that exists": (
        lambda world, draft: drafting(world, out=draft.name),
        "exists and is not overwritten",
    ),
    "a version left out": (skipped, "version 4 does not follow version 2"),
    "a version twice": (another_third, "version 3 does not follow version 3"),
    "a root that revokes who signed the targets": (
        orphaned_targets,
        "targets 2, which root 3 has to accept",
    ),
    "an expiry in the past": (
        lambda world, draft: signing(
            world, changed(draft, expires="2020-01-01T00:00:00Z"), "--yes"
        ),
        "which is past",
    ),
    "a version that is not the next": (
        lambda _world, draft: ("show", changed(draft, version=9)),
        "it must be 3",
    ),
    "a draft that is none": (
        lambda world, _draft: ("show", world.authority.release_root),
        "no draft of",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_changes_nothing(world: World, case: str) -> None:
    wrong, words = REFUSED[case]
    arguments = wrong(world, world.draft())
    before = files_below(world.folder)
    assert words in refused(*arguments)
    assert files_below(world.folder) == before


def test_an_option_out_of_range_is_a_matter_of_usage(world: World) -> None:
    result = ceremony(*drafting(world, "--days", "0"))
    assert result.exit_code == 2
    assert not (world.desk / "refused").exists()
