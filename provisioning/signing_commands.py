"""`skerry provision ceremony show`, `sign`, `combine`: from a draft to signed metadata."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from provisioning import ceremony_files, draft_report, drafts, signatures
from provisioning.ceremony_options import AsJson, Out, PassphraseFile, PinFile
from provisioning.drafts import DIRECTOR, RELEASE, OpenDraft
from provisioning.errors import ProvisioningError
from provisioning.layout import Authority
from signing_keys import opening
from signing_keys.passphrases import Secrets


def show(
    draft: Annotated[Path, typer.Argument(help="The draft.")],
    signature: Annotated[list[Path] | None, typer.Argument(help="Signature files.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show what a draft changes, who may sign it, and which of the given signatures count."""
    opened = _open(draft)
    draft_report.tell(opened, _signatures(signature), None, as_json=as_json)


def sign(  # noqa: PLR0913 (each is an option that a person gives)
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
    pin_file: PinFile = None,
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
        draft_report.tell(opened, [], None, as_json=False)
    _agree(opened, yes=yes)
    secrets = Secrets(passphrase_file=passphrase_file, pin_file=pin_file)
    public = opening.public_key(key, secrets)
    signatures.check_may_sign(opened, public.keyid)
    written = out or draft.with_name(f"{draft.stem}.{public.keyid[:8]}.sig")
    ceremony_files.check_absent(written)
    made = signatures.sign(opened, opening.open_signer(key, opened.keys[public.keyid], secrets))
    ceremony_files.write(written, signatures.encode(made))
    if as_json:
        draft_report.tell(opened, [made], written, as_json=True)
    else:
        sys.stdout.write(f"Signed with {public.keyid[:16]}: {written}\n")


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
        draft_report.tell(opened, made, None, as_json=False)
    content = signatures.combined(opened, made)
    ceremony_files.check_absent(out)
    ceremony_files.write(out, content)
    if as_json:
        draft_report.tell(opened, made, out, as_json=True)
    else:
        sys.stdout.write(f"Complete: {out}\n")


def _open(path: Path) -> OpenDraft:
    return drafts.decode(ceremony_files.read(path))


def _signatures(paths: Sequence[Path] | None) -> list[signatures.SignatureFile]:
    return [signatures.decode(ceremony_files.read(path)) for path in paths or []]


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
    if base.encode() != ceremony_files.read(path):
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
