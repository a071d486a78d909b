"""Uploads: what is signed and complete is published, anything else leaves nothing behind."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from tuf.api.metadata import Delegations, Metadata, TargetFile, Targets

from fleet_protocol.manifest import MANIFEST_FILE
from fleet_protocol.withdrawals import Withdrawals
from fleet_server.errors import (
    ConflictError,
    FleetError,
    MalformedError,
    NotFoundError,
    RefusedError,
    TooLargeError,
)
from fleet_server.releases.multipart import pieces
from fleet_server.releases.repository import Repository
from fleet_server.releases.service import Releases
from fleet_server.releases.verification import MAX_METADATA_BYTES
from tests.unit.fleet_server.authority import (
    OTHER_FAMILY,
    Fleet,
    ReleaseFiles,
    release,
    signed_role,
)
from tests.unit.fleet_server.conftest import FakeClock
from tests.unit.fleet_server.upload_form import CONTENT_TYPE, chunks, form
from tests.unit.fleet_server.uploads import Part, files_below, parts, publish, versions


async def test_a_proper_upload(fleet: Fleet, releases: Releases, repository: Repository) -> None:
    new = release()
    upload = await publish(releases, *parts(signed_role(fleet.publisher(), new), new))
    assert (upload.version, upload.releases) == (2, ["1.0.0"])
    assert repository.published.snapshot.version == 2
    row, manifest = await releases.get(new.family, "1.0.0")
    assert row.manifest_length == len(new.files[MANIFEST_FILE])
    assert row.size_bytes == sum(len(content) for content in new.files.values())
    assert manifest.variants[0].file == "model.onnx"
    for path, file in upload.added.items():
        assert repository.files.location(path, file).read_bytes() == new.by_path[path]
    assert list(files_below(fleet.data.repository / "staging")) == []


async def test_a_second_upload_brings_only_what_is_new(fleet: Fleet, releases: Releases) -> None:
    one, two = release("1.0.0"), release("1.1.0")
    await publish(releases, *parts(signed_role(fleet.publisher(), one), one))
    metadata = signed_role(fleet.publisher(), one, two, version=3)
    upload = await publish(releases, *parts(metadata, two))
    assert upload.releases == ["1.1.0"]
    assert await versions(releases) == ["1.0.0", "1.1.0"]


async def test_a_publisher_may_sign_the_same_list_anew(fleet: Fleet, releases: Releases) -> None:
    one = release()
    await publish(releases, *parts(signed_role(fleet.publisher(), one), one))
    again = await publish(releases, *parts(signed_role(fleet.publisher(), one, version=3)))
    assert (again.version, again.releases) == (3, [])


def _hand_signed(fleet: Fleet, targets: dict[str, TargetFile], *, delegates: bool = False) -> bytes:
    later = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    role = Targets(version=2, expires=later, targets=targets)
    if delegates:
        role.delegations = Delegations({}, {})
    metadata = Metadata(role)
    metadata.sign(fleet.publisher())
    return metadata.to_bytes()


def _one_target(fleet: Fleet, path: str, *, length: int = 1, algorithm: str = "sha256") -> bytes:
    return _hand_signed(fleet, {path: TargetFile(length, {algorithm: "0" * 64}, path)})


def _swapped(new: ReleaseFiles, name: str, content: bytes) -> ReleaseFiles:
    return ReleaseFiles(new.family, new.version, {**new.files, name: content})


def _refused(case: str, fleet: Fleet) -> tuple[list[Part], type[FleetError]]:  # noqa: C901, PLR0911, PLR0912 (a table)
    key, new = fleet.publisher(), release()
    content = new.files["model.onnx"]
    good = signed_role(key, new)
    match case:
        case "no metadata":
            return parts(good, new)[1:], MalformedError
        case "not JSON":
            return parts(b"{", new), MalformedError
        case "deeply nested":
            return parts(b"[" * 100_000, new), MalformedError
        case "not targets metadata":
            snapshot = fleet.data.repository / "metadata" / "1.snapshot.json"
            return parts(snapshot.read_bytes(), new), MalformedError
        case "too large":
            return parts(good + b" " * MAX_METADATA_BYTES, new), TooLargeError
        case "unsigned":
            unsigned = Metadata[Targets].from_bytes(good)
            unsigned.signatures.clear()
            return parts(unsigned.to_bytes(), new), RefusedError
        case "another family's key":
            return parts(signed_role(fleet.publisher(OTHER_FAMILY), new), new), RefusedError
        case "changed after signing":
            return parts(good.replace(b'"version":2', b'"version":3'), new), RefusedError
        case "expired":
            past = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
            return parts(signed_role(key, new, expires=past), new), RefusedError
        case "version skipped":
            return parts(signed_role(key, new, version=3), new), ConflictError
        case "version replayed":
            return parts(signed_role(key, new, version=1), new), ConflictError
        case "another family's path":
            other = release(family=OTHER_FAMILY)
            return parts(signed_role(key, other), other), RefusedError
        case "path outside":
            return parts(_one_target(fleet, "models/fashion_mnist/1.0.0/../x")), RefusedError
        case "bad version in path":
            return parts(_one_target(fleet, "models/fashion_mnist/latest/x")), RefusedError
        case "no manifest":
            return parts(_one_target(fleet, "models/fashion_mnist/1.0.0/x")), RefusedError
        case "no sha256":
            path = f"models/fashion_mnist/1.0.0/{MANIFEST_FILE}"
            return parts(_one_target(fleet, path, algorithm="sha512")), RefusedError
        case "huge manifest":
            path = f"models/fashion_mnist/1.0.0/{MANIFEST_FILE}"
            return parts(_one_target(fleet, path, length=2**40)), RefusedError
        case "further delegation":
            return parts(_hand_signed(fleet, {}, delegates=True)), RefusedError
        case "file missing":
            return parts(good, new)[:-1], RefusedError
        case "file too long":
            return parts(good, _swapped(new, "model.onnx", content + b"x")), RefusedError
        case "file too short":
            return parts(good, _swapped(new, "model.onnx", content[:-1])), RefusedError
        case "file with another hash":
            return parts(good, _swapped(new, "model.onnx", bytes(len(content)))), RefusedError
        case "file that is not signed":
            return parts(good, _swapped(new, "extra.bin", b"x")), RefusedError
        case "file twice":
            return [*parts(good, new), parts(good, new)[-1]], MalformedError
        case "another field":
            return [*parts(good, new), ("comment", None, b"x")], MalformedError
        case "manifest of another version":
            lying = ReleaseFiles(new.family, "2.0.0", new.files)
            return parts(signed_role(key, lying), lying), RefusedError
        case "manifest that is none":
            lying = _swapped(new, MANIFEST_FILE, b"{}")
            return parts(signed_role(key, lying), lying), RefusedError
        case "manifest that lies about a file":
            lying = _swapped(new, "model.onnx", bytes(len(content)))
            return parts(signed_role(key, lying), lying), RefusedError
        case "file that the manifest does not name":
            lying = _swapped(new, "extra.bin", b"x")
            return parts(signed_role(key, lying), lying), RefusedError
    raise AssertionError(case)


@pytest.mark.parametrize(
    "case",
    [
        "no metadata",
        "not JSON",
        "deeply nested",
        "not targets metadata",
        "too large",
        "unsigned",
        "another family's key",
        "changed after signing",
        "expired",
        "version skipped",
        "version replayed",
        "another family's path",
        "path outside",
        "bad version in path",
        "no manifest",
        "no sha256",
        "huge manifest",
        "further delegation",
        "file missing",
        "file too long",
        "file too short",
        "file with another hash",
        "file that is not signed",
        "file twice",
        "another field",
        "manifest of another version",
        "manifest that is none",
        "manifest that lies about a file",
        "file that the manifest does not name",
    ],
)
async def test_a_refused_upload_leaves_nothing(case: str, fleet: Fleet, releases: Releases) -> None:
    uploaded, error = _refused(case, fleet)
    before = list(files_below(fleet.data.repository))
    with pytest.raises(error):
        await publish(releases, *uploaded)
    assert list(files_below(fleet.data.repository)) == before
    assert await versions(releases) == []
    new = release()
    await publish(releases, *parts(signed_role(fleet.publisher(), new), new))


async def test_an_upload_that_breaks_off_leaves_nothing(fleet: Fleet, releases: Releases) -> None:
    new = release(size=200_000)
    body = form(*parts(signed_role(fleet.publisher(), new), new))
    before = list(files_below(fleet.data.repository))
    with pytest.raises(MalformedError, match="ends before"):
        await releases.publish(pieces(CONTENT_TYPE, chunks(body[:-50_000])))
    assert list(files_below(fleet.data.repository)) == before


@pytest.mark.parametrize("change", ["other content", "withdrawn"])
async def test_a_published_release_stays_as_it_is(
    fleet: Fleet, releases: Releases, change: str
) -> None:
    one, swapped = release("1.0.0"), release("1.0.0")
    await publish(releases, *parts(signed_role(fleet.publisher(), one), one))
    changed = [swapped] if change == "other content" else []
    metadata = signed_role(fleet.publisher(), *changed, version=3)
    with pytest.raises(RefusedError, match=r"1\.0\.0"):
        await publish(releases, *parts(metadata, *changed))


WITHDRAWN = Withdrawals(yanked={"1.0.0": "mislabelled"}, security_floor=1)


async def test_a_withdrawn_release_leaves_the_index_and_cannot_be_assigned(
    fleet: Fleet, releases: Releases
) -> None:
    one, other = release("1.0.0"), release("1.1.0")
    await publish(releases, *parts(signed_role(fleet.publisher(), one, other), one, other))
    await publish(
        releases, *parts(signed_role(fleet.publisher(), other, version=3, said=WITHDRAWN))
    )
    assert await versions(releases) == ["1.1.0"]
    with pytest.raises(NotFoundError, match=r"1\.0\.0 was withdrawn by its publisher \(mislab"):
        await releases.installable(one.family, "1.0.0")
    with pytest.raises(RefusedError, match=r"counter 0, and its publisher lets devices install 1"):
        await releases.installable(one.family, "1.1.0")


async def test_a_withdrawn_release_is_there_for_those_that_run_it_after_a_restart(
    fleet: Fleet, releases: Releases, clock: FakeClock
) -> None:
    one = release("1.0.0")
    await publish(releases, *parts(signed_role(fleet.publisher(), one), one))
    await publish(releases, *parts(signed_role(fleet.publisher(), version=3, said=WITHDRAWN)))
    before = [each for each in files_below(fleet.data.repository) if "targets/" in each]
    Repository(fleet.data.repository, fleet.data.online).heal(now=clock())
    assert before
    assert [each for each in files_below(fleet.data.repository) if "targets/" in each] == before


@pytest.mark.parametrize(
    ("following", "sentence"),
    [
        (Withdrawals(security_floor=1), "forgets that 1.0.0 was yanked"),
        (Withdrawals(yanked=WITHDRAWN.yanked), "lowers the security floor from 1 to 0"),
        (WITHDRAWN, "was yanked and cannot be published again"),
    ],
)
async def test_a_withdrawal_is_never_taken_back(
    fleet: Fleet, releases: Releases, following: Withdrawals, sentence: str
) -> None:
    one = release("1.0.0")
    await publish(releases, *parts(signed_role(fleet.publisher(), one), one))
    await publish(releases, *parts(signed_role(fleet.publisher(), version=3, said=WITHDRAWN)))
    with pytest.raises(RefusedError, match=sentence):
        await publish(
            releases,
            *parts(signed_role(fleet.publisher(), one, version=4, said=following), one),
        )
    assert await versions(releases) == []


async def test_two_uploads_of_one_version_cannot_both_be_committed(
    fleet: Fleet, releases: Releases
) -> None:
    one, two = release("1.0.0"), release("2.0.0")
    outcomes = await asyncio.gather(
        *(
            publish(releases, *parts(signed_role(fleet.publisher(), each), each))
            for each in (one, two)
        ),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ConflictError", "Upload"]
    assert len(await versions(releases)) == 1
