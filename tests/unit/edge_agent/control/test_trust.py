"""Verification of assignments: each numbered step refuses the attack that it is there for."""

import functools
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import TargetFile

from edge_agent.control import trust
from edge_agent.control.assignment import Accepted
from edge_agent.control.trust import TrustError, verify_assignment
from fleet_protocol.assignments import MAX_ASSIGNMENT_BYTES
from tests.simulators.device_releases import release
from tests.simulators.device_repository import START, target_file
from tests.simulators.director import Director

DEVICE = "cam-01"
ONE = release("1.0.0")
ROOM = {ONE.manifest_path: target_file(ONE.manifest_path, ONE.manifest_bytes)}


def director_of(pinned: bytes, *chain: bytes) -> trust.Director:
    return functools.reduce(trust.Director.followed_by, chain, trust.director(pinned))


def verify(
    director: Director,
    document: bytes,
    *,
    accepted: Accepted | None = None,
    now: datetime = START,
    chain: list[bytes] | None = None,
) -> Accepted:
    return verify_assignment(
        document,
        director=director_of(director.root, *(chain or [])),
        device_id=DEVICE,
        now=now,
        accepted=accepted,
    )


@pytest.fixture
def director() -> Director:
    return Director()


def test_a_good_assignment_says_what_to_run(director: Director) -> None:
    accepted = verify(director, director.assign(DEVICE, 3, [ONE]))
    assert accepted.assignment.version == 3
    (wanted,) = accepted.assignment.releases.values()
    assert (wanted.family, wanted.version) == ("animals", "1.0.0")
    assert wanted.manifest.sha256 == hashlib.sha256(ONE.manifest_bytes).hexdigest()
    assert wanted.manifest.length == len(ONE.manifest_bytes)


def test_an_order_to_run_nothing_is_one(director: Director) -> None:
    assert verify(director, director.assign(DEVICE, 1, [])).assignment.releases == {}


REFUSED: dict[str, tuple[Callable[[Director], bytes], str]] = {
    "1 endless": (lambda _: b"x" * (MAX_ASSIGNMENT_BYTES + 1), "at most"),
    "not json": (lambda _: b"\xff{", "not validly signed"),
    "empty": (lambda _: b"", "not validly signed"),
    "2 another role": (lambda d: d.make_root(2, d.root_key, d.root_key, d.key), "'root'"),
    "3 unsigned": (
        lambda d: json.dumps(json.loads(d.assign(DEVICE, 1, [ONE])) | {"signatures": []}).encode(),
        "not validly signed",
    ),
    "3 another key": (
        lambda d: d.assign_targets(DEVICE, 1, ROOM, signer=CryptoSigner.generate_ed25519()),
        "not validly signed",
    ),
    "3 changed": (
        lambda d: d.assign(DEVICE, 1, [ONE]).replace(b"1.0.0", b"9.0.0"),
        "not validly signed",
    ),
    "4 expired": (
        lambda d: d.assign(DEVICE, 1, [ONE], expires=START - timedelta(seconds=1)),
        "expired",
    ),
    "5 another device": (lambda d: d.assign("cam-02", 1, [ONE]), "for cam-02"),
    "5 unbound": (lambda d: d.assign_targets(DEVICE, 1, ROOM, fields={}), "not an assignment"),
    "5 incomplete": (
        lambda d: d.assign_targets(
            DEVICE,
            1,
            ROOM,
            fields={"x-skerry-assignment": {"device_id": DEVICE, "complete": False}},
        ),
        "not an assignment",
    ),
    "5 emptied": (
        lambda d: d.assign_targets(
            DEVICE, 1, {}, fields={"x-skerry-assignment": {"device_id": DEVICE}}
        ),
        "run_nothing",
    ),
    "7 not a manifest": (
        lambda d: d.assign_targets(DEVICE, 1, {p: target_file(p, b"x") for p in [ONE.model_path]}),
        "not a manifest",
    ),
    "7 outside models": (
        lambda d: d.assign_targets(DEVICE, 1, {p: target_file(p, b"x") for p in ["../x"]}),
        "models/",
    ),
    "7 two of a family": (
        lambda d: d.assign(DEVICE, 1, [ONE, release("1.1.0")]),
        "two releases of animals",
    ),
    "7 no sha256": (
        lambda d: d.assign_targets(
            DEVICE,
            1,
            {
                ONE.manifest_path: TargetFile.from_data(
                    ONE.manifest_path, ONE.manifest_bytes, ["sha512"]
                )
            },
        ),
        "SHA-256",
    ),
    "7 endless manifest": (
        lambda d: d.assign_targets(
            DEVICE,
            1,
            {ONE.manifest_path: TargetFile(2**40, {"sha256": "0" * 64}, ONE.manifest_path)},
        ),
        "at most",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_attack_is_refused(director: Director, case: str) -> None:
    make, reason = REFUSED[case]
    with pytest.raises(TrustError, match=reason):
        verify(director, make(director))


def test_the_same_document_again_is_the_accepted_one(director: Director) -> None:
    document = director.assign(DEVICE, 3, [ONE])
    accepted = verify(director, document)
    later = START + timedelta(days=365)
    assert verify(director, document, accepted=accepted, now=later) is accepted


@pytest.mark.parametrize(("version", "reason"), [(2, "accepted 3 already"), (3, "two different")])
def test_an_older_or_a_second_document_of_a_version_is_refused(
    director: Director, version: int, reason: str
) -> None:
    accepted = verify(director, director.assign(DEVICE, 3, [ONE]))
    with pytest.raises(TrustError, match=reason):
        verify(director, director.assign(DEVICE, version, []), accepted=accepted)


def test_a_newer_version_replaces_the_accepted_one(director: Director) -> None:
    accepted = verify(director, director.assign(DEVICE, 3, [ONE]))
    newer = verify(director, director.assign(DEVICE, 4, []), accepted=accepted)
    assert newer.assignment.version == 4


def test_an_expired_director_root_is_refused(director: Director) -> None:
    later = datetime.now(UTC) + timedelta(days=5000)
    document = director.assign(DEVICE, 1, [ONE], expires=later + timedelta(days=1))
    with pytest.raises(TrustError, match="root expired"):
        verify(director, document, now=later)


def test_a_rotated_root_is_reached_link_by_link(director: Director) -> None:
    second = CryptoSigner.generate_ed25519()
    link = director.make_root(2, second, director.root_key, second)
    assert director_of(director.root, link).root.version == 2


def test_a_link_that_does_not_hold_is_refused(director: Director) -> None:
    second = CryptoSigner.generate_ed25519()
    links = {
        "not by its predecessor": director.make_root(2, second, second),
        "not by itself": director.make_root(2, second, director.root_key),
        "a version is left out": director.make_root(3, second, director.root_key, second),
        "not a root": director.assign(DEVICE, 2, [ONE]),
        "not json": b"{",
    }
    for link in links.values():
        with pytest.raises(TrustError):
            director_of(director.root, link)


def test_a_pinned_root_that_is_not_signed_by_itself_is_refused(director: Director) -> None:
    with pytest.raises(TrustError):
        trust.director(director.make_root(1, director.root_key, director.key))
