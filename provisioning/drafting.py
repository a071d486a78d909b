"""Makes drafts: the next version of a role from the one before and a list of changes. Pure.

Nothing is signed here. A change that makes no sense is refused now, not after people have travelled
to sign it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from securesystemslib.signer import Key
from tuf.api.metadata import (
    TOP_LEVEL_ROLE_NAMES,
    DelegatedRole,
    Delegations,
    Metadata,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)

from fleet_protocol import names
from provisioning import drafts
from provisioning.drafts import DIRECTOR, RELEASE, ROOT, TARGETS, Draft, check_reachable
from provisioning.errors import ProvisioningError

ASSIGNMENT = "assignment"
"""What people call the director's ``targets`` role."""

_ONLINE = frozenset({Snapshot.type, Timestamp.type})
_ROLES = {
    RELEASE: {role: role for role in (ROOT, TARGETS, Snapshot.type, Timestamp.type)},
    DIRECTOR: {ROOT: ROOT, ASSIGNMENT: TARGETS},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What shall be different; the names are roles, or families for the targets metadata.

    Attributes:
        add: keys to add.
        remove: key ids, or beginnings of them, to take away.
        thresholds: how many must sign.
        drop: families that nobody shall publish any more.
    """

    add: Mapping[str, Sequence[Key]] = field(default_factory=dict)
    remove: Mapping[str, Sequence[str]] = field(default_factory=dict)
    thresholds: Mapping[str, int] = field(default_factory=dict)
    drop: Sequence[str] = ()


def root(repository: str, base: bytes | None, changes: Changes, *, expires: datetime) -> Draft:
    """Draft a root of the release repository or of the director.

    Raises:
        ProvisioningError: a change makes no sense; the message says which.
    """
    signed = drafts.parse(base, Root).signed if base else Root(expires=expires)
    roles = _ROLES[repository]
    for name in (*changes.add, *changes.remove, *changes.thresholds):
        if name not in roles:
            raise ProvisioningError(
                f"the {repository} root has no role {name!r}: {', '.join(roles)}"
            )
    for name, keyids in changes.remove.items():
        for keyid in keyids:
            signed.revoke_key(_known(keyid, signed.roles[roles[name]].keyids, name), roles[name])
    for name, keys in changes.add.items():
        for key in keys:
            _check_new(key, signed.roles[roles[name]].keyids, name)
            signed.add_key(key, roles[name])
    for name, threshold in changes.thresholds.items():
        signed.roles[roles[name]].threshold = threshold
    for name, role in roles.items():
        check_reachable(name, signed.roles[role].threshold, len(signed.roles[role].keyids))
    _check_online(signed, repository)
    _advance(signed, base, expires)
    return _draft(repository, ROOT, Metadata(signed).to_bytes(), base=base)


def targets(base: bytes | None, changes: Changes, *, delegator: bytes, expires: datetime) -> Draft:
    """Draft the targets metadata, which delegates families to publishers.

    Args:
        base: the version before; None for the first.
        changes: by family; a family that is new is delegated ``models/<family>/*/*``.
        delegator: the root whose targets keys will sign, signed or still a draft's metadata.
        expires: when it runs out.

    Raises:
        ProvisioningError: a change makes no sense; the message says which.
    """
    signed = drafts.parse(base, Targets).signed if base else Targets(expires=expires)
    signed.delegations = _delegations(signed.delegations, changes)
    _advance(signed, base, expires)
    return _draft(RELEASE, TARGETS, Metadata(signed).to_bytes(), base=base, delegator=delegator)


def _delegations(before: Delegations | None, changes: Changes) -> Delegations:
    roles = dict((before.roles if before else None) or {})
    for family in (*changes.remove, *changes.drop):
        if family not in roles:
            raise ProvisioningError(f"nobody publishes {family!r}: {', '.join(sorted(roles))}")
    for family in changes.drop:
        del roles[family]
    for family in changes.add:
        roles.setdefault(checked_family(family), delegation(family))
    added = _changed_keys(roles, changes)
    for family, threshold in changes.thresholds.items():
        if family not in roles:
            raise ProvisioningError(f"nobody publishes {family!r}: add a key of its publisher")
        roles[family].threshold = threshold
    for family, role in roles.items():
        check_reachable(f"the publisher of {family}", role.threshold, len(role.keyids))
    used = {keyid for role in roles.values() for keyid in role.keyids}
    keys = {**(before.keys if before else {}), **added}
    return Delegations({keyid: key for keyid, key in keys.items() if keyid in used}, roles)


def _changed_keys(roles: Mapping[str, DelegatedRole], changes: Changes) -> dict[str, Key]:
    for family, beginnings in changes.remove.items():
        for beginning in beginnings:
            roles[family].keyids.remove(_known(beginning, roles[family].keyids, family))
    added = {}
    for family, keys in changes.add.items():
        for key in keys:
            _check_new(key, roles[family].keyids, family)
            roles[family].keyids.append(key.keyid)
            added[key.keyid] = key
    return added


def family_list(family: str, base: bytes | None, *, delegator: bytes, expires: datetime) -> Draft:
    """Draft the list of a family's releases anew, unchanged: for new keys or a later expiry.

    Raises:
        ProvisioningError: the base is no list of releases of this family.
    """
    signed = drafts.parse(base, Targets).signed if base else Targets(expires=expires)
    foreign = [path for path in signed.targets if not path.startswith(f"models/{family}/")]
    if foreign or signed.delegations is not None:
        raise ProvisioningError(f"the base is not the list of {family}'s releases")
    _advance(signed, base, expires)
    return _draft(RELEASE, family, Metadata(signed).to_bytes(), base=base, delegator=delegator)


def delegation(family: str) -> DelegatedRole:
    """Return the delegation of one family, without keys yet."""
    return DelegatedRole(
        name=family, keyids=[], threshold=1, terminating=True, paths=[f"models/{family}/*/*"]
    )


def checked_family(value: str) -> str:
    """Return ``value`` if it can name a family and thus a delegated role.

    Raises:
        ProvisioningError: it is the name of a top-level role.
        ProtocolError: it is not a family name.
    """
    if names.family(value) in TOP_LEVEL_ROLE_NAMES:
        raise ProvisioningError(
            f"a model family cannot be called {value!r}: update metadata uses that name itself"
        )
    return value


def _advance(signed: Root | Targets, base: bytes | None, expires: datetime) -> None:
    signed.version += 1 if base else 0  # what follows nothing has version 1 already
    signed.expires = expires.replace(microsecond=0)


def _draft(
    repository: str, role: str, metadata: bytes, *, base: bytes | None, delegator: bytes = b""
) -> Draft:
    draft = Draft(
        repository="director" if repository == DIRECTOR else "release",
        role=role,
        metadata=metadata.decode(),
        base=(base or b"").decode(),
        delegator=delegator.decode(),
    )
    drafts.OpenDraft(draft)
    return draft


def _known(beginning: str, keyids: Sequence[str], who: str) -> str:
    found = [keyid for keyid in keyids if keyid.startswith(beginning)]
    if len(found) != 1 or not beginning:
        raise ProvisioningError(
            f"{len(found)} keys of {who} begin with {beginning!r}; it has "
            f"{', '.join(keyid[:16] for keyid in keyids) or 'none'}"
        )
    return found[0]


def _check_new(key: Key, keyids: Sequence[str], who: str) -> None:
    if key.keyid in keyids:
        raise ProvisioningError(f"{who} has the key {key.keyid[:16]} already")


def _check_online(signed: Root, repository: str) -> None:
    """Refuse a key that would sign online and offline: its thief would be as good as the holder.

    Raises:
        ProvisioningError: there is such a key.
    """
    online = {TARGETS} if repository == DIRECTOR else _ONLINE
    for role in online:
        for other in signed.roles.keys() - online:
            shared = set(signed.roles[role].keyids) & set(signed.roles[other].keyids)
            if shared:
                raise ProvisioningError(
                    f"the key {shared.pop()[:16]} would sign {other} offline and {role} online; "
                    "use a key of its own"
                )
        if signed.roles[role].threshold != 1:
            raise ProvisioningError(f"{role} is signed online by one key: its threshold is 1")
