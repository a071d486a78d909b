"""Says in words what a draft changes, for the people who are about to sign it. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from tuf.api.metadata import Role, Root, Targets

from provisioning.drafts import DIRECTOR, TARGETS, OpenDraft


def differences(draft: OpenDraft) -> list[str]:
    """Return what changes against the version before, a line each."""
    before, after = draft.base, draft.signed
    lines = [
        f"expires {after.expires:%Y-%m-%d %H:%M} UTC"
        + (f", until now {before.expires:%Y-%m-%d %H:%M} UTC" if before else "")
    ]
    if isinstance(after, Root):
        old = before.roles if isinstance(before, Root) else {}
        names = {TARGETS: "assignment"} if draft.draft.repository == DIRECTOR else {}
        wanted = {name: role for name, role in after.roles.items() if role.keyids}
        lines += _roles(old, wanted, names)
        if isinstance(before, Root) and before.consistent_snapshot != after.consistent_snapshot:
            lines.append(f"consistent snapshots: {after.consistent_snapshot}")
    else:
        if draft.follows_a_stranger:
            lines.append(
                "CAUTION: those who sign this did not sign the version before; compare it with "
                "the server's, since only its sender says that the rest is unchanged"
            )
        lines += _roles(_delegated(before), _delegated(after), {})
        lines += _releases(before, after)
    return lines


def _roles(
    before: Mapping[str, Role], after: Mapping[str, Role], names: Mapping[str, str]
) -> Iterator[str]:
    for name in [*after, *(gone for gone in before if gone not in after and before[gone].keyids)]:
        shown = names.get(name, name)
        old = before[name].keyids if name in before else []
        new = after[name].keyids if name in after else []
        yield from (f"{shown}: adds key {keyid[:16]}" for keyid in new if keyid not in old)
        yield from (f"{shown}: removes key {keyid[:16]}" for keyid in old if keyid not in new)
        threshold = after[name].threshold if name in after else None
        if name not in before or before[name].threshold != threshold:
            yield (
                f"{shown}: {threshold} of {len(new)} keys sign" if new else f"{shown}: nobody signs"
            )


def _delegated(targets: Root | Targets | None) -> Mapping[str, Role]:
    if not isinstance(targets, Targets) or targets.delegations is None:
        return {}
    return targets.delegations.roles or {}


def _releases(before: Root | Targets | None, after: Targets) -> Iterator[str]:
    old = set(before.targets) if isinstance(before, Targets) else set()
    for path in sorted(after.targets.keys() - old):
        yield f"adds {path}"
    for path in sorted(old - after.targets.keys()):
        yield f"removes {path}"
    if isinstance(before, Targets):
        yield from _contents(before, after, sorted(old & after.targets.keys()))
        if before.unrecognized_fields != after.unrecognized_fields:
            yield f"says {after.unrecognized_fields}, until now {before.unrecognized_fields}"


def _contents(before: Targets, after: Targets, paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        if before.targets[path] != after.targets[path]:
            yield f"changes the content of {path}"
