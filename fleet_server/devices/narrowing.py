"""Sources for what few devices fulfil though no single value says so.

- Devices that lack an attribute are those whose set of names is one without it.
- Devices with none of some values lack the attribute, or have one of its other values.
- Ids that contain a text are those of some stems (`fleet_server.devices.derived`).

One or two statements find them. They are worth it where few of the devices that were looked at
fit: most conditions of these kinds hold for most devices, which are found sooner by looking at
each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from sqlalchemy import ColumnElement, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server.devices import derived, selection, sources
from fleet_server.devices.selector import ID, Has, Lacks, NoneOf
from fleet_server.devices.sources import Branch, Condition, Source, Span, Wanted

_MAX_SETS = 128
"""Sets of names that are looked through: each costs a look-up for each name that is asked for."""
_MAX_STEMS = 256
_MAX_BRANCHES = 32
"""Values that are read side by side; each costs more than a hundred devices that are looked at."""

Absent = Lacks | NoneOf
Term = tuple[str, str | float]


def applies(wanted: Wanted) -> bool:
    """Say whether there is a condition that may have such a source."""
    return bool(_absent(wanted)) or _has_stems(wanted)


async def of(session: AsyncSession, wanted: Wanted) -> list[Source]:
    """Return the sources, all of them ordered; each gives all that is wanted and more."""
    found: list[Source | None] = []
    absent = _absent(wanted)
    sets = await _sets(session, wanted, [each.name for each in absent]) if absent else None
    if sets is not None:
        found += [await _without(session, wanted, each, sets) for each in absent]
    if _has_stems(wanted):
        found.append(await _with_stems(session, wanted))
    return [each for each in found if each is not None]


@dataclass(frozen=True, slots=True)
class _Set:
    """A set of names that some devices have.

    Attributes:
        key: its `derived.names_key`.
        lacks: those of the names that were asked for which it has not.
    """

    key: str
    lacks: frozenset[str]


def _absent(wanted: Wanted) -> list[Absent]:
    """Return the requirements about what devices have not; all of them have an id."""
    return [
        each for each in wanted.requirements if isinstance(each, Lacks | NoneOf) and each.name != ID
    ]


def _has_stems(wanted: Wanted) -> bool:
    return derived.stem(wanted.search) != ""


async def _sets(
    session: AsyncSession, wanted: Wanted, names: Sequence[str]
) -> Sequence[_Set] | None:
    """Return the sets of names that devices have; None if they are many.

    What a set has in it is asked of one of its devices.
    """
    keys = sources.values_above(wanted, Has(derived.NAMES), _MAX_SETS + 1)
    example = sources.first_with(wanted, derived.NAMES, keys.c.value)
    # With a limit, which keeps PostgreSQL from looking for the example once for each name.
    some = select(keys.c.value, example.label("example")).limit(_MAX_SETS + 1).subquery()
    rows = (
        await session.execute(
            select(some.c.value, *(_names(wanted, each, some.c.example) for each in names))
        )
    ).all()
    if len(rows) > _MAX_SETS:
        return None
    return [
        _Set(key, frozenset(name for name, is_in in zip(names, has, strict=True) if not is_in))
        for key, *has in rows
    ]


def _names(wanted: Wanted, name: str, device_id: ColumnElement[str]) -> ColumnElement[bool]:
    return selection.looked_up(Has(name), device_id, literal(wanted.tenant))


async def _without(
    session: AsyncSession, wanted: Wanted, requirement: Absent, sets: Sequence[_Set]
) -> Source | None:
    """Return the source of devices for which a requirement holds, and perhaps of others."""
    lacking = [each.key for each in sets if requirement.name in each.lacks]
    others: Sequence[str | float] = ()
    if isinstance(requirement, NoneOf):
        values = await sources.values(session, wanted, Has(requirement.name))
        others = [each for each in values if each not in requirement.values]
        if len(values) > sources.MAX_BRANCHES:
            return None
        if len(others) == len(values):  # nobody has one of those
            return _of_all(wanted, requirement)
    if len(lacking) == len(sets):
        return _of_all(wanted, requirement)
    if len(others) + len(lacking) > _MAX_BRANCHES:
        return None
    terms: list[Term] = [(requirement.name, each) for each in others]
    terms += [(derived.NAMES, each) for each in lacking]
    # A device that has one of the others may have one of those values beside it.
    return _of_terms(wanted, [] if others else [requirement], terms, is_distinct=len(others) <= 1)


async def _with_stems(session: AsyncSession, wanted: Wanted) -> Source | None:
    known = sources.values_above(wanted, Has(derived.STEM), _MAX_STEMS + 1)
    stems = list(await session.scalars(select(known.c.value)))
    if len(stems) > _MAX_STEMS:
        return None
    found = derived.stems_with(wanted.search.lower(), stems)
    several = [*found.certain, *found.possible]
    if len(several) > _MAX_BRANCHES:
        return None
    answers = [] if found.possible else [wanted.search]
    terms: list[Term] = [(derived.STEM, each) for each in several]
    return _of_terms(wanted, answers, terms, is_distinct=True)


def _of_all(wanted: Wanted, requirement: Absent) -> Source:
    return replace(sources.everything(wanted), answers=[requirement])


def _of_terms(
    wanted: Wanted,
    answers: Sequence[Condition],
    terms: Sequence[Term],
    *,
    is_distinct: bool,
) -> Source:
    branches = partial(_with_terms, wanted, terms or [(derived.STEM, derived.NEVER)])
    return Source(answers=answers, branches=branches, is_ordered=True, is_distinct=is_distinct)


def _with_terms(wanted: Wanted, terms: Sequence[Term], span: Span) -> list[Branch]:
    return [sources.with_value(wanted, name, value, span) for name, value in terms]
