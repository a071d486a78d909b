"""Publishing over real HTTPS to a server with a real repository."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.metadata import Metadata, Timestamp

from model_pipeline import bundle as bundles
from model_pipeline.bundle import Bundle
from model_pipeline.errors import PipelineError
from model_pipeline.publish import Outcome, Publisher
from model_pipeline.server_link import Credentials, ServerLink
from provisioning.layout import Authority
from tests.simulators.release_server import TOKEN, ReleaseServer
from tests.unit.model_pipeline.conftest import PASSPHRASE, make_bundle, manifest_for

CONTENT = bytes(3_000_000)


@dataclass(frozen=True)
class Rig:
    """An authority, its running server, its publisher's key and a bundle to publish."""

    authority: Authority
    server: ReleaseServer
    bundle: Bundle
    signer: CryptoSigner
    folder: Path

    def publisher(
        self,
        *,
        token: str = TOKEN,
        cache: str = "cache",
        root: Path | None = None,
        ca_file: Path | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> Publisher:
        credentials = Credentials(ca_file=ca_file or self.authority.fleet_ca, token=token)
        return Publisher(
            ServerLink(self.server.url, credentials),
            root=(root or self.authority.release_root).read_bytes(),
            cache=self.authority.root / cache,
            clock=clock,
        )

    def publish(self, bundle: Bundle | None = None) -> Outcome:
        return self.publisher().publish(bundle or self.bundle, lambda: [self.signer])

    def other_bundle(self, version: str) -> Bundle:
        return make_bundle(self.folder, version.encode(), version=version)

    def rival_publishes(self, bundle: Bundle) -> Callable[[], None]:
        """Return what publishes from another machine; its own upload meets the next hook."""
        rival = self.publisher(cache="rival")

        def publish() -> None:
            rival.publish(bundle, lambda: [self.signer])

        return publish


@pytest.fixture
def rig(authority: Authority, server: ReleaseServer, tmp_path: Path) -> Rig:
    return Rig(
        authority=authority,
        server=server,
        bundle=make_bundle(tmp_path, CONTENT),
        signer=publisher(authority, "letters"),
        folder=tmp_path,
    )


def nothing() -> None:
    """Let an upload pass."""


def publisher(authority: Authority, family: str) -> CryptoSigner:
    pem = authority.publisher_key(family).read_bytes()
    return CryptoSigner(load_pem_private_key(pem, PASSPHRASE))


def nobody() -> Sequence[Signer]:
    raise AssertionError("the key is not to be opened")


def test_a_release_is_signed_and_arrives(rig: Rig) -> None:
    heard: list[tuple[int, int]] = []
    outcome = rig.publisher().publish(
        rig.bundle, lambda: [rig.signer], progress=lambda sent, total: heard.append((sent, total))
    )
    assert outcome is Outcome.PUBLISHED
    role = rig.server.role("letters")
    assert role.version == 2
    assert timedelta(days=364) < role.expires - datetime.now(UTC) < timedelta(days=365)
    for file in rig.bundle.files:
        target = role.targets[f"models/letters/1.0.0/{file.name}"]
        assert (target.length, target.hashes) == (file.length, {"sha256": file.sha256})
        assert rig.server.target(target.path, file.sha256) == b"".join(file.chunks())
    assert heard[-1][0] == heard[-1][1]
    assert max(after[0] - before[0] for before, after in pairwise(heard)) <= 1024 * 1024


def test_the_same_release_again_changes_nothing(rig: Rig) -> None:
    rig.publish()
    assert rig.publisher().publish(rig.bundle, nobody) is Outcome.ALREADY_THERE
    assert (rig.server.uploads, rig.server.role("letters").version) == (1, 2)


def test_other_content_under_a_published_version_is_refused_before_signing(rig: Rig) -> None:
    rig.publish()
    other = make_bundle(rig.folder, CONTENT + b"!")
    with pytest.raises(PipelineError, match="with other content"):
        rig.publisher().publish(other, nobody)
    assert rig.server.uploads == 1


def test_releases_add_up_and_earlier_ones_stay_as_they_are(rig: Rig) -> None:
    rig.publish()
    before = rig.server.role("letters").targets
    rig.publish(rig.other_bundle("1.1.0"))
    after = rig.server.role("letters").targets
    assert {path: after[path] for path in before} == before
    assert {path.split("/")[2] for path in after} == {"1.0.0", "1.1.0"}


def test_a_lost_race_is_tried_again(rig: Rig) -> None:
    theirs = rig.rival_publishes(rig.other_bundle("2.0.0"))
    rig.server.faults.before_upload += [theirs]
    assert rig.publish() is Outcome.PUBLISHED
    role = rig.server.role("letters")
    assert role.version == 3
    assert {path.split("/")[2] for path in role.targets} == {"1.0.0", "2.0.0"}


def test_a_second_lost_race_is_reported(rig: Rig) -> None:
    first = rig.rival_publishes(rig.other_bundle("2.0.0"))
    second = rig.rival_publishes(rig.other_bundle("2.1.0"))
    rig.server.faults.before_upload += [first, nothing, second]
    with pytest.raises(PipelineError, match="does not follow"):
        rig.publish()
    assert rig.server.role("letters").version == 3
    assert rig.publish() is Outcome.PUBLISHED


def test_the_same_release_by_a_colleague_meanwhile_is_no_error(rig: Rig) -> None:
    rig.server.faults.before_upload += [rig.rival_publishes(rig.bundle)]
    assert rig.publish() is Outcome.PUBLISHED
    assert rig.server.role("letters").version == 2


def test_a_refusal_for_another_reason_is_not_tried_again(rig: Rig) -> None:
    rig.server.faults.answer = (422, b'{"code": "refused", "detail": "the moon is full"}')
    with pytest.raises(PipelineError, match="the moon is full"):
        rig.publish()
    assert rig.server.uploads == 1


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (507, b'{"detail": "no room on the disk"}', "no room on the disk"),
        (500, b"<html>", "status 500"),
        (503, b"", "status 503"),
        (400, b"[]", "status 400"),
        (302, b"elsewhere", "status 302"),
    ],
)
def test_the_servers_own_sentence_is_shown(
    rig: Rig, status: int, body: bytes, sentence: str
) -> None:
    rig.server.faults.answer = (status, body)
    with pytest.raises(PipelineError, match=sentence):
        rig.publish()


def test_a_server_that_takes_and_does_not_publish_is_found_out(rig: Rig) -> None:
    rig.server.faults.take_without_publishing = True
    with pytest.raises(PipelineError, match="does not show it"):
        rig.publish()


def test_a_connection_that_breaks_off(rig: Rig) -> None:
    rig.server.faults.hang_up = True
    with pytest.raises(PipelineError, match="cannot reach"):
        rig.publish()


def test_a_foreign_token(rig: Rig) -> None:
    with pytest.raises(PipelineError, match="role publisher"):
        rig.publisher(token="someone-elses").publish(rig.bundle, nobody)


def test_the_key_of_another_family(rig: Rig) -> None:
    other = publisher(rig.authority, "other")
    with pytest.raises(PipelineError, match="cannot sign for letters"):
        rig.publisher().publish(rig.bundle, lambda: [other])
    assert rig.server.uploads == 0


def test_a_family_that_the_authority_does_not_know(rig: Rig) -> None:
    stranger = bundles.write(
        rig.folder / "x.bundle",
        manifest_for(CONTENT, family="stranger"),
        {"model.onnx": rig.folder / "model.onnx"},
    )
    with pytest.raises(PipelineError, match="does not know the family 'stranger'"):
        rig.publisher().publish(stranger, nobody)


def test_an_older_repository_than_one_seen_before(rig: Rig) -> None:
    before = {path.name: path.read_bytes() for path in rig.authority.metadata.iterdir()}
    rig.publish()
    following = rig.other_bundle("1.1.0")
    assert rig.publish(following) is Outcome.PUBLISHED
    rig.server.faults.metadata = before
    with pytest.raises(PipelineError, match="cannot be trusted"):
        rig.publisher().publish(rig.other_bundle("1.2.0"), nobody)


@pytest.mark.parametrize(
    "name", ["timestamp.json", "1.snapshot.json", "1.targets.json", "1.letters.json"]
)
@pytest.mark.parametrize("damage", ["emptied", "flipped", "stripped"])
def test_tampered_metadata_is_not_signed_upon(rig: Rig, name: str, damage: str) -> None:
    content = (rig.authority.metadata / name).read_bytes()
    metadata = Metadata.from_bytes(content)
    metadata.signatures.clear()
    rig.server.faults.metadata[name] = {
        "emptied": b"",
        "flipped": content.replace(b'"1.0.31"', b'"1.0.30"'),
        "stripped": metadata.to_bytes(),
    }[damage]
    with pytest.raises(PipelineError, match=r"cannot be trusted|cannot read the release repo"):
        rig.publisher().publish(rig.bundle, nobody)


def test_a_list_of_endless_length(rig: Rig) -> None:
    rig.server.faults.metadata["1.letters.json"] = bytes(10_000_000)
    with pytest.raises(PipelineError, match="maximum allowed length"):
        rig.publisher().publish(rig.bundle, nobody)


def test_a_repository_that_has_run_out(rig: Rig) -> None:
    timestamp = Metadata[Timestamp].from_file(str(rig.authority.metadata / "timestamp.json"))
    timestamp.signed.expires = datetime.now(UTC) - timedelta(hours=1)
    timestamp.sign(rig.server.signer("timestamp"))
    rig.server.faults.metadata["timestamp.json"] = timestamp.to_bytes()
    with pytest.raises(PipelineError, match="run out"):
        rig.publisher().publish(rig.bundle, nobody)


def test_a_publisher_may_renew_a_list_that_has_run_out(rig: Rig) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=400)
    rig.publisher(clock=lambda: long_ago).publish(rig.bundle, lambda: [rig.signer])
    assert rig.server.role("letters").is_expired()
    rig.publish(rig.other_bundle("1.1.0"))
    assert not rig.server.role("letters").is_expired()
    assert len(rig.server.role("letters").targets) == 4


def test_two_publishers_on_one_machine_do_not_share_a_cache_at_once(rig: Rig) -> None:
    def meet() -> Sequence[Signer]:
        with pytest.raises(PipelineError, match="another `skerry model publish` or `yank`"):
            rig.publisher().publish(rig.bundle, nobody)
        return [rig.signer]

    assert rig.publisher().publish(rig.bundle, meet) is Outcome.PUBLISHED


def test_the_server_must_show_a_certificate_of_the_authority(rig: Rig) -> None:
    stranger = rig.publisher(ca_file=rig.authority.online / "device-ca.crt")
    with pytest.raises(PipelineError, match="no certificate of this authority"):
        stranger.publish(rig.bundle, nobody)


def test_the_root_of_another_authority(rig: Rig) -> None:
    with pytest.raises(PipelineError, match="cannot be trusted"):
        rig.publisher(root=rig.authority.director_root).publish(rig.bundle, nobody)


def test_nobody_listens(rig: Rig) -> None:
    gone = ReleaseServer(rig.authority.server)
    with gone.running():
        pass
    with pytest.raises(PipelineError, match="cannot reach"):
        replace(rig, server=gone).publish()


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:1",
        "localhost:8443",
        "https://",
        "https://host:0",
        "https://host:99999",
        "https://host/path",
        "https://user@host",
        "https://host?x=1",
        "",
    ],
)
def test_what_is_no_server_address(rig: Rig, url: str) -> None:
    with pytest.raises(PipelineError, match="https://HOST:PORT"):
        ServerLink(url, Credentials(ca_file=rig.authority.fleet_ca, token=TOKEN))
