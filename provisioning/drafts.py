"""Drafts: metadata that waits for signatures, passed from machine to machine as one file.

A draft carries what will be signed, the version that it follows, and the metadata that says who may
sign, so that a signer on a machine of their own sees exactly what changes and for whom they sign.
What makes a draft signable is here; `drafting` makes drafts and `signatures` signs them.

A root is signed by the threshold of the root before it and by its own (TUF specification 5.3.4):
whoever holds only the new keys cannot put themselves in the place of the old ones.
"""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Role, Root, T, Targets
from tuf.api.serialization import DeserializationError

from provisioning.errors import ProvisioningError

RELEASE = "release"
DIRECTOR = "director"
ROOT = Root.type
TARGETS = Targets.type
MAX_BYTES = 16 * 1024 * 1024


class Draft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file that is passed around; every metadata in it is TUF JSON as text.

    Attributes:
        role: ``root``, ``targets`` or a model family.
        metadata: what is to be signed, without signatures.
        base: the version before, signed; empty for the first one.
        delegator: what names the keys of the role: the root for ``targets``, the targets for a
            family; empty for a root, which names its own. It may itself wait for signatures.
    """

    schema: Literal[1] = 1
    repository: Literal["release", "director"]
    role: str
    metadata: str
    base: str = ""
    delegator: str = ""


@dataclass(frozen=True, slots=True)
class Quorum:
    """Some keys of which a number must sign.

    Attributes:
        who: in words, such as ``root 3``.
        keys: by key id.
    """

    who: str
    threshold: int
    keys: Mapping[str, Key]


class OpenDraft:
    """A draft that was read and makes sense."""

    def __init__(self, draft: Draft) -> None:
        """Read what a draft carries.

        Raises:
            ProvisioningError: it contradicts itself, or could never be signed.
        """
        self.draft = draft
        self.metadata: Metadata[Root] | Metadata[Targets] = (
            parse(draft.metadata, Root) if draft.role == ROOT else parse(draft.metadata, Targets)
        )
        self.base = self._base()
        self.quorums = self._quorums()
        self._check()

    @property
    def signed(self) -> Root | Targets:
        """What is to be signed."""
        return self.metadata.signed

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the bytes that are signed: what signers read out to each other."""
        return hashlib.sha256(self.metadata.signed_bytes).hexdigest()

    @property
    def title(self) -> str:
        """The draft in words."""
        return f"{self.draft.repository} {self.draft.role} {self.signed.version}"

    @property
    def keys(self) -> dict[str, Key]:
        """Every key that may sign, by key id."""
        return {keyid: key for quorum in self.quorums for keyid, key in quorum.keys.items()}

    def check_expiry(self, now: datetime) -> None:
        """Refuse a draft that would be dead on arrival.

        Raises:
            ProvisioningError: it expires before ``now``.
        """
        if self.signed.is_expired(now):
            raise ProvisioningError(
                f"{self.title} expires at {self.signed.expires:%Y-%m-%d}, which is past: draft it "
                "again with more --days"
            )

    def _base(self) -> Root | Targets | None:
        if not self.draft.base:
            return None
        if isinstance(self.signed, Root):
            return parse(self.draft.base, Root).signed
        return parse(self.draft.base, Targets).signed

    @property
    def follows_a_stranger(self) -> bool:
        """Whether the version before is not signed by those who are asked to sign this one.

        Then nothing but its sender says that it is what was published: after a change of keys that
        is so, and if somebody would have signed what looks unchanged.
        """
        if not isinstance(self.base, Targets):
            return False
        (quorum,) = self.quorums
        base = parse(self.draft.base, Targets)
        held = 0
        for keyid, key in quorum.keys.items():
            with suppress(UnverifiedSignatureError, VerificationError, KeyError):
                key.verify_signature(base.signatures[keyid], base.signed_bytes)
                held += 1
        return held < quorum.threshold

    def _quorums(self) -> list[Quorum]:
        draft, signed = self.draft, self.signed
        if isinstance(signed, Root):
            before = [self.base] if isinstance(self.base, Root) else []
            return [_of_root(root, ROOT, f"root {root.version}") for root in (*before, signed)]
        if draft.role == TARGETS:
            return [_of_root(parse(draft.delegator, Root).signed, TARGETS, "targets")]
        return [_of_family(parse(draft.delegator, Targets).signed, draft.role)]

    def _check(self) -> None:
        following = (self.base.version if self.base else 0) + 1
        if self.signed.version != following:
            raise ProvisioningError(
                f"{self.title} does not follow version {following - 1}: it must be {following}"
            )
        if self.metadata.signatures:
            raise ProvisioningError(f"{self.title} is a draft with signatures in it")
        for quorum in self.quorums:
            check_reachable(quorum.who, quorum.threshold, len(quorum.keys))
            if len({str(key.keyval) for key in quorum.keys.values()}) < len(quorum.keys):
                raise ProvisioningError(
                    f"{quorum.who} has one key under two ids: it would count twice"
                )
        if isinstance(self.signed, Root) and self.base:
            _check_signed(parse(self.draft.base, Root))


def decode(payload: bytes) -> OpenDraft:
    """Read the file of a draft.

    Raises:
        ProvisioningError: it is none, or it makes no sense.
    """
    try:
        if len(payload) > MAX_BYTES:
            raise ProvisioningError(f"a draft has at most {MAX_BYTES} bytes")
        return OpenDraft(msgspec.json.decode(payload, type=Draft))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProvisioningError(
            f"this is no draft of `skerry provision ceremony draft-root`, `draft-targets` or "
            f"`draft-list`: {error}"
        ) from error


def encode(draft: Draft) -> bytes:
    """Return the file of a draft."""
    return msgspec.json.format(msgspec.json.encode(draft), indent=1) + b"\n"


def parse(text: str | bytes, kind: type[T]) -> Metadata[T]:
    """Read metadata of a known kind, verifying nothing.

    Raises:
        ProvisioningError: it is none, or another role's.
    """
    try:
        metadata = Metadata[T].from_bytes(text if isinstance(text, bytes) else text.encode())
    except (DeserializationError, RepositoryError, ValueError, KeyError) as error:
        raise ProvisioningError(f"not update metadata: {error}") from error
    if not isinstance(metadata.signed, kind):
        raise ProvisioningError(f"{kind.type} metadata is needed, this is {metadata.signed.type}")
    return metadata


def check_reachable(who: str, threshold: int, keys: int) -> None:
    """Refuse a threshold that nobody could ever reach.

    Raises:
        ProvisioningError: it is below one or above the number of keys.
    """
    if not 1 <= threshold <= keys:
        raise ProvisioningError(
            f"{who} would need {threshold} of {keys} keys: use a threshold of 1 to the number of "
            "keys, or add keys"
        )


def _of_root(root: Root, role: str, who: str) -> Quorum:
    return _quorum(who, root.roles[role], root.keys)


def _of_family(targets: Targets, family: str) -> Quorum:
    roles = targets.delegations.roles if targets.delegations else None
    if targets.delegations is None or not roles or family not in roles:
        raise ProvisioningError(f"the targets metadata does not delegate to the family {family!r}")
    return _quorum(f"publisher of {family}", roles[family], targets.delegations.keys)


def _quorum(who: str, role: Role, keys: Mapping[str, Key]) -> Quorum:
    absent = [keyid for keyid in role.keyids if keyid not in keys]
    if absent:
        raise ProvisioningError(f"{who} names the key {absent[0][:16]}, which is not there")
    return Quorum(who, role.threshold, {keyid: keys[keyid] for keyid in role.keyids})


def _check_signed(base: Metadata[Root]) -> None:
    try:
        base.signed.verify_delegate(ROOT, base.signed_bytes, base.signatures)
    except RepositoryError as error:
        raise ProvisioningError(f"the root that this one follows is not valid: {error}") from error
