"""The running server adopts metadata that was made offline, and recovers from stolen keys."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, Key, Signer
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from fleet_server.assignments.director import Director
from fleet_server.errors import ConflictError, FleetError, RefusedError
from fleet_server.new_key import make
from fleet_server.releases.repository import Repository
from fleet_server.releases.verification import verify_metadata
from provisioning import drafting, drafts, signatures
from provisioning.drafting import Changes
from provisioning.drafts import Draft
from signing_keys import public_keys
from tests.unit.fleet_server.authority import FAMILY, PASSPHRASE, Fleet
from tests.unit.fleet_server.conftest import FakeClock

LATER = datetime.now(UTC) + timedelta(days=300)


def offline(path: Path) -> CryptoSigner:
    return CryptoSigner(load_pem_private_key(path.read_bytes(), PASSPHRASE))


def signed(draft: Draft, *signers: Signer) -> bytes:
    opened = drafts.OpenDraft(draft)
    return signatures.combined(opened, [signatures.sign(opened, signer) for signer in signers])


def new_root(fleet: Fleet, changes: Changes, *signers: Signer, expires: datetime = LATER) -> bytes:
    base = fleet.authority.release_root.read_bytes()
    draft = drafting.root("release", base, changes, expires=expires)
    return signed(draft, offline(fleet.authority.root_key), *signers)


def online_key(fleet: Fleet, role: str) -> Key:
    public, _ = make(fleet.data.root, role)
    return public_keys.decode(public.read_bytes())


def rotated_online(fleet: Fleet) -> bytes:
    """Return a root with new snapshot and timestamp keys, which the server has made."""
    root = Metadata[Root].from_bytes(fleet.authority.release_root.read_bytes()).signed
    roles = ("snapshot", "timestamp")
    return new_root(
        fleet,
        Changes(
            add={role: [online_key(fleet, role)] for role in roles},
            remove={role: root.roles[role].keyids for role in roles},
        ),
    )


def test_a_new_root_is_followed_without_a_restart(
    fleet: Fleet, repository: Repository, clock: FakeClock
) -> None:
    root = rotated_online(fleet)
    assert repository.adopt([root], now=clock()) == ["2.root.json"]
    assert repository.adopt([root], now=clock()) == []
    published = repository.published
    assert published.root.version == 2
    for role in (Snapshot.type, Timestamp.type):
        version = "" if role == Timestamp.type else f"{published.snapshot.version}."
        path = repository.metadata_file(f"{version}{role}.json")
        metadata = Metadata[Snapshot].from_bytes(path.read_bytes())
        published.root.verify_delegate(role, metadata.signed_bytes, metadata.signatures)


def test_an_adoption_that_was_cut_off_is_finished_at_the_next_start(
    fleet: Fleet, repository: Repository, clock: FakeClock
) -> None:
    del repository
    path = fleet.data.repository / "metadata" / "2.root.json"
    path.write_bytes(rotated_online(fleet))
    restarted = Repository(fleet.data.repository, fleet.data.online)
    restarted.heal(now=clock())
    assert restarted.published.root.version == 2
    assert restarted.published.timestamp.expires > clock()
    again = Repository(fleet.data.repository, fleet.data.online)
    assert again.published.timestamp.version == restarted.published.timestamp.version


def test_pushed_versions_are_left_behind_after_the_rotation(
    fleet: Fleet, repository: Repository, clock: FakeClock
) -> None:
    """A thief of both online keys wrote into the server's own repository."""
    metadata = fleet.data.repository / "metadata"
    thief = {
        role: CryptoSigner(
            load_pem_private_key((fleet.data.online / f"{role}.pem").read_bytes(), None)
        )
        for role in ("snapshot", "timestamp")
    }
    end = 2**31 - 1
    lies = dict(repository.published.snapshot.meta)
    lies["targets.json"].version = end
    snapshot = Metadata(Snapshot(version=end, expires=LATER, meta=lies))
    snapshot.sign(thief["snapshot"])
    (metadata / f"{end}.snapshot.json").write_bytes(snapshot.to_bytes())
    timestamp = Metadata[Timestamp].from_bytes((metadata / "timestamp.json").read_bytes())
    timestamp.signed.version = timestamp.signed.snapshot_meta.version = end
    timestamp.sign(thief["timestamp"])
    (metadata / "timestamp.json").write_bytes(timestamp.to_bytes())

    (metadata / "2.root.json").write_bytes(rotated_online(fleet))
    recovered = Repository(fleet.data.repository, fleet.data.online)
    recovered.heal(now=clock())
    assert recovered.published.timestamp.version < 2**30
    assert recovered.published.targets.version == 1
    assert set(recovered.published.families) == set(repository.published.families)


def test_another_process_on_the_same_folder_follows(
    fleet: Fleet, repository: Repository, clock: FakeClock
) -> None:
    other = Repository(fleet.data.repository, fleet.data.online)
    before = other.follow()
    assert other.follow() is before, "nothing is read again where nothing is new"
    repository.adopt([rotated_online(fleet)], now=clock())
    assert (other.published.root.version, other.follow().root.version) == (1, 2)
    clock.advance(hours=13)
    assert other.renew(now=clock())
    published = repository.follow()
    assert published.timestamp.version == other.published.timestamp.version
    assert Repository(fleet.data.repository, fleet.data.online).published == published


def test_an_upload_of_a_publisher_whom_another_process_saw_revoked_is_refused(
    fleet: Fleet, repository: Repository, clock: FakeClock
) -> None:
    other = Repository(fleet.data.repository, fleet.data.online)
    base = (fleet.data.repository / "metadata" / f"1.{FAMILY}.json").read_bytes()
    metadata = Metadata[Targets].from_bytes(base)
    metadata.signed.version = 2
    metadata.sign(fleet.publisher())
    upload = verify_metadata(
        metadata.to_bytes(),
        targets=other.published.targets,
        current=other.published.current,
        now=clock(),
    )
    repository.adopt([successors_targets(fleet, CryptoSigner.generate_ed25519())], now=clock())
    with pytest.raises(RefusedError, match="not signed"):
        other.commit(upload, {}, now=clock())
    assert other.published.targets.version == 2
    assert not (fleet.data.repository / "metadata" / f"2.{FAMILY}.json").exists()


def test_a_start_leaves_the_uploads_of_other_processes_alone(
    fleet: Fleet, repository: Repository, clock: FakeClock
) -> None:
    folder = repository.files.staging_folder("upload-1", size_bytes=1)
    Repository(fleet.data.repository, fleet.data.online).heal(now=clock())
    assert folder.is_dir()
    repository.files.discard(folder)
    assert not folder.exists()


def test_new_targets_keys_come_with_targets_that_they_signed(
    fleet: Fleet, repository: Repository, clock: FakeClock
) -> None:
    alice, bob = CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()
    old = offline(fleet.authority.targets_key).public_key.keyid
    root = new_root(
        fleet,
        Changes(
            add={"targets": [alice.public_key, bob.public_key]},
            remove={"targets": [old]},
            thresholds={"targets": 2},
        ),
    )
    with pytest.raises(RefusedError, match="does not hold under root 2"):
        repository.adopt([root], now=clock())
    targets = drafting.targets(
        fleet.authority.published_targets.read_bytes(), Changes(), delegator=root, expires=LATER
    )
    content = signed(targets, alice, bob)
    assert repository.adopt([content, root], now=clock()) == ["2.root.json", "2.targets.json"]
    assert repository.published.targets.version == 2
    assert Repository(fleet.data.repository, fleet.data.online).published.root.version == 2


def successors_targets(fleet: Fleet, successor: CryptoSigner) -> bytes:
    """Return targets that give the family to another publisher."""
    return signed(
        drafting.targets(
            fleet.authority.published_targets.read_bytes(),
            Changes(
                add={FAMILY: [successor.public_key]},
                remove={FAMILY: [fleet.publisher().public_key.keyid]},
            ),
            delegator=fleet.authority.release_root.read_bytes(),
            expires=LATER,
        ),
        offline(fleet.authority.targets_key),
    )


def test_a_revoked_publisher_and_its_successor(
    fleet: Fleet, repository: Repository, clock: FakeClock
) -> None:
    stolen, successor = fleet.publisher(), CryptoSigner.generate_ed25519()
    targets = successors_targets(fleet, successor)
    repository.adopt([targets], now=clock())
    assert FAMILY not in repository.published.families
    base = (fleet.data.repository / "metadata" / f"1.{FAMILY}.json").read_bytes()
    listed = drafting.family_list(FAMILY, base, delegator=targets, expires=LATER)
    metadata = Metadata[Targets].from_bytes(listed.metadata.encode())
    metadata.sign(stolen)
    with pytest.raises(RefusedError, match="not signed by enough keys"):
        repository.adopt([metadata.to_bytes()], now=clock())
    repository.adopt([signed(listed, successor)], now=clock())
    assert repository.published.families[FAMILY].version == 2


REFUSED: dict[str, tuple[Callable[[Fleet], Sequence[bytes]], type[FleetError], str]] = {
    "not signed by the old root": (
        lambda fleet: [thiefs_root(fleet)],
        RefusedError,
        "not signed by enough keys",
    ),
    "a version left out": (
        lambda fleet: [following(fleet, following(fleet, None))],
        ConflictError,
        "does not follow root 1",
    ),
    "expired": (
        lambda fleet: [new_root(fleet, Changes(), expires=datetime.now(UTC))],
        RefusedError,
        "expired",
    ),
    "an online key that the server lacks": (
        lambda fleet: [
            new_root(
                fleet,
                Changes(
                    add={"snapshot": [CryptoSigner.generate_ed25519().public_key]},
                    remove={"snapshot": snapshot_keys(fleet)},
                ),
            )
        ],
        RefusedError,
        "skerry server new-key",
    ),
    "a snapshot": (
        lambda fleet: [(fleet.data.repository / "metadata" / "timestamp.json").read_bytes() + b" "],
        RefusedError,
        "signed by the server itself",
    ),
}


def snapshot_keys(fleet: Fleet) -> list[str]:
    root = Metadata[Root].from_bytes(fleet.authority.release_root.read_bytes()).signed
    return root.roles["snapshot"].keyids


def following(fleet: Fleet, base: bytes | None) -> bytes:
    base = base or fleet.authority.release_root.read_bytes()
    draft = drafting.root("release", base, Changes(), expires=LATER)
    return signed(draft, offline(fleet.authority.root_key))


def thiefs_root(fleet: Fleet) -> bytes:
    thief = CryptoSigner.generate_ed25519()
    metadata = Metadata[Root].from_bytes(fleet.authority.release_root.read_bytes())
    metadata.signed.version = 2
    metadata.signed.add_key(thief.public_key, "root")
    metadata.sign(thief)
    return metadata.to_bytes()


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_changes_nothing(
    fleet: Fleet, repository: Repository, clock: FakeClock, case: str
) -> None:
    documents, error, words = REFUSED[case]
    before = {path.name for path in (fleet.data.repository / "metadata").iterdir()}
    with pytest.raises(error, match=words):
        repository.adopt(documents(fleet), now=clock())
    assert {path.name for path in (fleet.data.repository / "metadata").iterdir()} == before
    assert repository.published.root.version == 1


def test_a_revoked_assignment_key_never_comes_back(fleet: Fleet, clock: FakeClock) -> None:
    director = Director(fleet.data.director)
    root_key = offline(fleet.authority.root_key)
    first = next(iter(director.root.roles["targets"].keyids))
    old = director.root.keys[first]
    base = fleet.authority.director_root.read_bytes()
    new = CryptoSigner.generate_ed25519().public_key
    second = signed(
        drafting.root(
            "director",
            base,
            Changes(add={"assignment": [new]}, remove={"assignment": [first]}),
            expires=LATER,
        ),
        root_key,
    )
    other = Director(fleet.data.director)
    director.adopt(second, director.check(second, now=clock()))
    assert (director.root.version, director.epoch) == (2, 2)
    with pytest.raises(ConflictError, match="another server adopted director root 2"):
        other.adopt(second, other.check(second, now=clock()))
    other.follow()
    assert (other.root.version, other.epoch) == (2, 2)
    back = signed(
        drafting.root(
            "director",
            second,
            Changes(add={"assignment": [old]}, remove={"assignment": [new.keyid]}),
            expires=LATER,
        ),
        root_key,
    )
    with pytest.raises(RefusedError, match="brings back the assignment key"):
        director.check(back, now=clock())
    assert Director(fleet.data.director).epoch == 2
