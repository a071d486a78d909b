"""Says what a draft changes and which signatures it has, in words or as JSON."""

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from fleet_protocol.plain_text import plain_lines
from provisioning import differences, signatures
from provisioning.drafts import OpenDraft


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


def tell(
    opened: OpenDraft,
    made: Sequence[signatures.SignatureFile],
    written: Path | None,
    *,
    as_json: bool,
) -> None:
    """Print what a draft changes and how far its signatures are.

    Args:
        opened: the draft.
        made: signatures on it.
        written: the file that the command wrote.
        as_json: as one JSON document.

    Raises:
        ProvisioningError: a signature does not hold.
    """
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
        sys.stdout.write(plain_lines(_words(told)))  # another holder's file, maybe


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
