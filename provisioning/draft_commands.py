"""`skerry provision ceremony draft-...`: from what is current and some changes to a draft."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from securesystemslib.signer import Key

from provisioning import ceremony_files, draft_report, drafting, drafts
from provisioning.ceremony_options import AsJson, Out
from provisioning.drafting import Changes
from provisioning.drafts import DIRECTOR, RELEASE, Draft, OpenDraft
from provisioning.errors import ProvisioningError
from provisioning.layout import Authority
from signing_keys import public_keys

DEFAULT_DAYS = 365
MAX_DAYS = 3650

Days = Annotated[int, typer.Option(min=1, max=MAX_DAYS, help="Days until it runs out.")]
Add = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=FILE", help="Add the key of a .pub.json file to a role or family."),
]
Remove = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=KEYID", help="Revoke a key, by the first characters of its id."),
]
Threshold = Annotated[
    list[str] | None, typer.Option(metavar="NAME=N", help="How many keys must sign from now on.")
]


def draft_root(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    out: Out,
    repository: Annotated[
        str, typer.Option(help=f"`{RELEASE}` (models) or `{DIRECTOR}` (assignments).")
    ] = RELEASE,
    authority: Annotated[
        Path | None, typer.Option(help="Follow the root in its `public/`.")
    ] = None,
    base: Annotated[Path | None, typer.Option(help="Follow this signed root.")] = None,
    add: Add = None,
    remove: Remove = None,
    threshold: Threshold = None,
    days: Days = DEFAULT_DAYS,
    as_json: AsJson = False,
) -> None:
    """Draft a root: renew it, or add, replace and revoke keys of its roles.

    Roles of the release root: root, targets, snapshot, timestamp. Roles of the director's: root,
    assignment. Without a root to follow, version 1 is drafted.

    Example, a new timestamp key: `skerry provision ceremony draft-root --authority authority
    --add timestamp=new.pub.json --remove timestamp=1f2e --out root.draft`
    """
    if repository not in {RELEASE, DIRECTOR}:
        raise ProvisioningError(f"--repository is {RELEASE} or {DIRECTOR}, not {repository[:40]!r}")
    place = Authority(authority) if authority else None
    default = None
    if place:
        default = place.release_root if repository == RELEASE else place.director_root
    made = drafting.root(
        repository,
        _optional(base or default),
        _changes(add, remove, threshold),
        expires=_expires(days),
    )
    _put(out, made, as_json=as_json)


def draft_targets(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    out: Out,
    authority: Annotated[
        Path | None, typer.Option(help="Follow the targets and the root in its `public/`.")
    ] = None,
    base: Annotated[Path | None, typer.Option(help="Follow this signed targets.json.")] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="The root that names the targets keys: signed, or a draft beside it."),
    ] = None,
    add: Add = None,
    remove: Remove = None,
    threshold: Threshold = None,
    drop: Annotated[
        list[str] | None, typer.Option(help="A family that nobody shall publish any more.")
    ] = None,
    days: Days = DEFAULT_DAYS,
    as_json: AsJson = False,
) -> None:
    """Draft the targets metadata: renew it, or change which publishers sign for which family.

    A family that is new is delegated. Example, a new publisher key: `skerry provision ceremony
    draft-targets --authority authority --add fashion_mnist=new.pub.json
    --remove fashion_mnist=9a3b --out targets.draft`
    """
    place = Authority(authority) if authority else None
    delegator = _optional(root or (place.release_root if place else None))
    if delegator is None:
        raise ProvisioningError("say who signs: --authority, or --root with the release root")
    following = base or (place.published_targets if place else None)
    made = drafting.targets(
        _optional(following),
        _changes(add, remove, threshold, drop),
        delegator=_undrafted(delegator),
        expires=_expires(days),
    )
    _put(out, made, as_json=as_json)


def draft_list(  # noqa: PLR0913 (each is an option that a person gives)
    family: Annotated[str, typer.Argument(help="Model family.")],
    *,
    out: Out,
    base: Annotated[
        Path | None,
        typer.Option(
            help="The family's signed list: repository/metadata/VERSION.FAMILY.json at the server."
        ),
    ] = None,
    authority: Annotated[
        Path | None, typer.Option(help="Take the targets in its `public/`.")
    ] = None,
    targets: Annotated[
        Path | None,
        typer.Option(help="The targets that name the publisher: signed, or a draft beside it."),
    ] = None,
    days: Days = DEFAULT_DAYS,
    as_json: AsJson = False,
) -> None:
    """Draft a family's list of releases anew, unchanged: for a new publisher, or to renew it."""
    delegator = _optional(
        targets or (Authority(authority).published_targets if authority else None)
    )
    if delegator is None:
        raise ProvisioningError("say who signs: --authority, or --targets with targets.json")
    made = drafting.family_list(
        drafting.checked_family(family),
        _optional(base),
        delegator=_undrafted(delegator),
        expires=_expires(days),
    )
    _put(out, made, as_json=as_json)


def _put(out: Path, made: Draft, *, as_json: bool) -> None:
    ceremony_files.check_absent(out)
    ceremony_files.write(out, drafts.encode(made))
    draft_report.tell(OpenDraft(made), [], out, as_json=as_json)
    if not as_json:
        sys.stdout.write(f"Next: skerry provision ceremony sign {out} --key URI, at each holder\n")


def _expires(days: int) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def _optional(path: Path | None) -> bytes | None:
    return None if path is None else ceremony_files.read(path)


def _undrafted(content: bytes) -> bytes:
    """Return the metadata in a draft, or the signed metadata itself."""
    try:
        return msgspec.json.decode(content, type=Draft).metadata.encode()
    except msgspec.MsgspecError:
        return content


def _changes(
    add: list[str] | None,
    remove: list[str] | None,
    threshold: list[str] | None,
    drop: list[str] | None = None,
) -> Changes:
    numbers: dict[str, int] = {}
    for name, texts in _pairs(threshold, "--threshold").items():
        if len(texts) != 1 or not texts[0].isdecimal():
            raise ProvisioningError(f"--threshold {name}={texts[-1][:40]}: use one number")
        numbers[name] = int(texts[0])
    return Changes(
        add={
            name: [_public(Path(text)) for text in texts]
            for name, texts in _pairs(add, "--add").items()
        },
        remove=_pairs(remove, "--remove"),
        thresholds=numbers,
        drop=drop or [],
    )


def _pairs(texts: list[str] | None, option: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in texts or []:
        name, separator, value = text.partition("=")
        if not separator or not name or not value:
            raise ProvisioningError(f"{option} {text[:80]!r}: use NAME=VALUE")
        found.setdefault(name, []).append(value)
    return found


def _public(path: Path) -> Key:
    return public_keys.decode(ceremony_files.read(path))
