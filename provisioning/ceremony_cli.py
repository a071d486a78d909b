"""`skerry provision ceremony`: keys held by several people on separate machines.

The steps pass files: `draft-root`, `draft-targets` or `draft-list` on one machine, `sign` on each
holder's, `combine` on any, `publish` where the authority's directory is. Nothing here needs a
network; `skerry fleet adopt` then takes the result to the server.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from securesystemslib.signer import Key

from provisioning import differences, drafting, drafts, durable_files, key_files, signatures
from provisioning.drafting import Changes
from provisioning.drafts import DIRECTOR, RELEASE, Draft, OpenDraft
from provisioning.encrypted_pem import encrypted_pem
from provisioning.errors import ProvisioningError
from provisioning.layout import Authority
from provisioning.recording import record
from signing_keys import key_file, opening, passphrases, public_keys
from signing_keys.passphrases import Secrets

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Create, rotate and revoke keys whose holders sit at separate machines: "
    "`key`, `draft-...`, `sign`, `combine`, `publish`. docs/key-ceremony.md walks through it.",
)

DEFAULT_DAYS = 365
MAX_DAYS = 3650

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        envvar=passphrases.FILE_VARIABLE,
        help="File whose only line is the key's passphrase; asked for without it.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Days = Annotated[int, typer.Option(min=1, max=MAX_DAYS, help="Days until it runs out.")]
Out = Annotated[Path, typer.Option(help="File to write; it must not exist.")]
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


class Quorum(msgspec.Struct, frozen=True, kw_only=True):
    """How far the signatures of one quorum are."""

    who: str
    threshold: int
    keys: list[str]
    signed_by: list[str]
    missing: int


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a command says with ``--json``."""

    draft: str
    fingerprint: str
    version: int
    expires: str
    changes: list[str]
    quorums: list[Quorum]
    complete: bool
    written: str | None = None


@app.command()
def key(
    out: Annotated[Path, typer.Option(help="Key file to make; its public half gets .pub.json.")],
    of: Annotated[
        str | None,
        typer.Option(help="Make no key: export the public half of hsm:, awskms:, file: ..."),
    ] = None,
    *,
    online: Annotated[
        bool,
        typer.Option("--online", help="Without a passphrase: for a key that a server opens alone."),
    ] = False,
    passphrase_file: PassphraseFile = None,
    pin_file: Annotated[
        Path | None,
        typer.Option(envvar=passphrases.PIN_VARIABLE, help="File with the PIN of the token."),
    ] = None,
) -> None:
    """Make a signing key, or export the public half of one in a token, HSM or KMS.

    Hand the .pub.json file to whoever drafts; the private half stays with you.

    Examples: `skerry provision ceremony key --out alice.pem`,
    `skerry provision ceremony key --of "hsm:2?label=alice" --out alice`
    """
    public = out.with_suffix(".pub.json")
    for path in (public, *(() if of else (out,))):
        _check_absent(path)
    if of:
        found = opening.public_key(of, Secrets(passphrase_file=passphrase_file, pin_file=pin_file))
    else:
        made = key_files.new_ed25519()
        pem = (
            key_files.plain_pem(made)
            if online
            else encrypted_pem(made, passphrases.chosen(passphrase_file, "Passphrase for the key"))
        )
        _write(out, pem, mode=durable_files.PRIVATE_MODE)
        found = key_file.public_of(made)
    _write(public, public_keys.encode(found))
    sys.stdout.write(f"{public}  key {found.keyid}\n")


@app.command()
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
        _content(base or default),
        _changes(add, remove, threshold),
        expires=_expires(days),
    )
    _put(out, made, as_json=as_json)


@app.command()
def draft_targets(  # noqa: PLR0913
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
    delegator = _content(root or (place.release_root if place else None))
    if delegator is None:
        raise ProvisioningError("say who signs: --authority, or --root with the release root")
    following = base or (place.published_targets if place else None)
    made = drafting.targets(
        _content(following),
        _changes(add, remove, threshold, drop),
        delegator=_undrafted(delegator),
        expires=_expires(days),
    )
    _put(out, made, as_json=as_json)


@app.command()
def draft_list(  # noqa: PLR0913
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
    delegator = _content(targets or (Authority(authority).published_targets if authority else None))
    if delegator is None:
        raise ProvisioningError("say who signs: --authority, or --targets with targets.json")
    made = drafting.family_list(
        drafting.checked_family(family),
        _content(base),
        delegator=_undrafted(delegator),
        expires=_expires(days),
    )
    _put(out, made, as_json=as_json)


@app.command()
def show(
    draft: Annotated[Path, typer.Argument(help="The draft.")],
    signature: Annotated[list[Path] | None, typer.Argument(help="Signature files.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show what a draft changes, who may sign it, and which of the given signatures count."""
    opened = _open(draft)
    _tell(opened, _signatures(signature), None, as_json=as_json)


@app.command()
def sign(  # noqa: PLR0913
    draft: Annotated[Path, typer.Argument(help="The draft.")],
    *,
    key: Annotated[str, typer.Option(help="Your key: file:PATH, hsm:ID?label=TOKEN, awskms:...")],
    out: Annotated[
        Path | None, typer.Option(help="Signature file; beside the draft without it.")
    ] = None,
    authority: Annotated[
        Path | None,
        typer.Option(help="Your own copy: the draft must follow what is in its `public/`."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Sign without asking.")] = False,
    passphrase_file: PassphraseFile = None,
    pin_file: Annotated[
        Path | None,
        typer.Option(envvar=passphrases.PIN_VARIABLE, help="File with the PIN of the token."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a draft and, if you agree, sign it with your key.

    Compare the fingerprint with the other holders over a channel that you trust. The signature is
    a file of its own: send it to whoever combines.

    Example: `skerry provision ceremony sign root.draft --key file:alice.pem`
    """
    opened = _open(draft)
    opened.check_expiry(datetime.now(UTC))
    if authority:
        _check_follows(opened, Authority(authority))
    if not as_json:
        _tell(opened, [], None, as_json=False)
    _agree(opened, yes=yes)
    secrets = Secrets(passphrase_file=passphrase_file, pin_file=pin_file)
    public = opening.public_key(key, secrets)
    signatures.check_may_sign(opened, public.keyid)
    written = out or draft.with_name(f"{draft.stem}.{public.keyid[:8]}.sig")
    _check_absent(written)
    made = signatures.sign(opened, opening.open_signer(key, opened.keys[public.keyid], secrets))
    _write(written, signatures.encode(made))
    if as_json:
        _tell(opened, [made], written, as_json=True)
    else:
        sys.stdout.write(f"Signed with {public.keyid[:16]}: {written}\n")


@app.command()
def combine(
    draft: Annotated[Path, typer.Argument(help="The draft.")],
    signature: Annotated[list[Path], typer.Argument(help="Signature files.")],
    *,
    out: Out,
    as_json: AsJson = False,
) -> None:
    """Verify signatures and put them into the metadata, if there are enough.

    Example: `skerry provision ceremony combine root.draft root.*.sig --out 2.root.json`
    """
    opened = _open(draft)
    opened.check_expiry(datetime.now(UTC))
    made = _signatures(signature)
    if not as_json:
        _tell(opened, made, None, as_json=False)
    content = signatures.combined(opened, made)
    _check_absent(out)
    _write(out, content)
    if as_json:
        _tell(opened, made, out, as_json=True)
    else:
        sys.stdout.write(f"Complete: {out}\n")


@app.command()
def publish(
    file: Annotated[list[Path], typer.Argument(help="Signed metadata of `combine`, in order.")],
    *,
    authority: Annotated[Path, typer.Option(help="Whose `public/` shall have it.")],
) -> None:
    """Verify signed metadata against the authority and make it the current one there.

    New claims carry the new roots from then on. Take the files to the server afterwards, all at
    once: `skerry fleet adopt FILE... --server URL`.
    """
    for written in record(
        Authority(authority), [_content(path) or b"" for path in file], now=datetime.now(UTC)
    ):
        sys.stdout.write(f"{written}\n")
    names = " ".join(str(path) for path in file)
    sys.stdout.write(f"Next: skerry fleet adopt {names} --server URL --token-file FILE\n")


def _expires(days: int) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def _content(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            return file.read(drafts.MAX_BYTES + 1)
    except OSError as error:
        raise ProvisioningError(f"cannot read {path}: {error.strerror}") from error


def _open(path: Path) -> OpenDraft:
    return drafts.decode(_content(path) or b"")


def _signatures(paths: Sequence[Path] | None) -> list[signatures.SignatureFile]:
    return [signatures.decode(_content(path) or b"") for path in paths or []]


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
    return public_keys.decode(_content(path) or b"")


def _check_follows(opened: OpenDraft, authority: Authority) -> None:
    """Refuse a draft whose base is not the metadata that this signer knows.

    Raises:
        ProvisioningError: it is another one, or of a role that an authority does not keep.
    """
    draft = opened.draft
    known = {
        (RELEASE, drafts.ROOT): (authority.release_root, draft.base),
        (DIRECTOR, drafts.ROOT): (authority.director_root, draft.base),
        (RELEASE, drafts.TARGETS): (authority.published_targets, draft.base),
    }
    if (draft.repository, draft.role) not in known:
        raise ProvisioningError(
            f"{authority.root} keeps no list of releases to compare {opened.title} with: sign it "
            "without --authority"
        )
    path, base = known[draft.repository, draft.role]
    if base.encode() != (_content(path) or b""):
        raise ProvisioningError(
            f"{opened.title} does not follow {path}, which you trust: ask where it comes from"
        )


def _agree(opened: OpenDraft, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ProvisioningError("nobody can be asked here: say --yes after `ceremony show`")
    if not typer.confirm(f"Sign {opened.title} with fingerprint {opened.fingerprint[:16]}?"):
        raise ProvisioningError("not signed")


def _check_absent(path: Path) -> None:
    if path.exists():
        raise ProvisioningError(f"{path} exists and is not overwritten: choose another name")


def _put(out: Path, made: Draft, *, as_json: bool) -> None:
    _check_absent(out)
    _write(out, drafts.encode(made))
    _tell(OpenDraft(made), [], out, as_json=as_json)
    if not as_json:
        sys.stdout.write(f"Next: skerry provision ceremony sign {out} --key URI, at each holder\n")


def _write(path: Path, content: bytes, *, mode: int = durable_files.PUBLIC_MODE) -> None:
    try:
        durable_files.replace(path, content, mode=mode)
    except OSError as error:
        raise ProvisioningError(f"cannot write {path}: {error.strerror}") from error


def _tell(
    opened: OpenDraft,
    made: Sequence[signatures.SignatureFile],
    written: Path | None,
    *,
    as_json: bool,
) -> None:
    found = signatures.progress(opened, made)
    told = Told(
        draft=opened.title,
        fingerprint=opened.fingerprint,
        version=opened.signed.version,
        expires=opened.signed.expires.isoformat(),
        changes=differences.differences(opened),
        quorums=[
            Quorum(
                who=one.quorum.who,
                threshold=one.quorum.threshold,
                keys=sorted(one.quorum.keys),
                signed_by=list(one.signed_by),
                missing=one.missing,
            )
            for one in found
        ],
        complete=not any(one.missing for one in found),
        written=str(written) if written else None,
    )
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(told), indent=1) + b"\n")
    else:
        sys.stdout.write(_words(told))


def _words(told: Told) -> str:
    lines = [f"{told.draft}, fingerprint {told.fingerprint}"]
    lines += [f"  {change}" for change in told.changes]
    for quorum in told.quorums:
        count = f"{len(quorum.signed_by)} of {quorum.threshold} signatures"
        lines.append(f"  {quorum.who}: {count}, {'complete' if not quorum.missing else 'open'}")
        lines += [
            f"    {'signed ' if keyid in quorum.signed_by else '       '} {keyid}"
            for keyid in quorum.keys
        ]
    if told.written:
        lines.append(f"  written to {told.written}")
    return "\n".join(lines) + "\n"
