"""What selectors see of a device: the labels that operators set and the facts that it reports.

Both share one name space, and the names of facts are reserved, so that a name in a selector means
one thing. Pure; `fleet_server.devices.terms` keeps the rows that selectors are answered from.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from fleet_protocol import names
from fleet_protocol.errors import ProtocolError
from fleet_protocol.messages import Reported
from fleet_server.devices.selector import ID, Attributes
from fleet_server.errors import RefusedError

Labels = dict[str, str]
Facts = dict[str, list[str]]

_RUNS = "runs."
"""Followed by a family: the version that answers calls."""

FACT_NAMES = frozenset(
    {ID, "accelerator", "agent_version", "backend", "cpu_count", "machine", "ram_gib"}
)

_GIB = 1024**3
_NOT_IN_VALUES = re.compile(r"[^A-Za-z0-9._:/+@-]")
_MAX_VALUE = 63


def facts_of(reported: Reported) -> Facts:
    """Return what a device's report says of it, as selectable values."""
    capabilities = reported.capabilities
    memory = capabilities.memory_total_bytes
    facts: dict[str, Sequence[str]] = {
        "accelerator": capabilities.accelerators,
        "agent_version": [reported.agent_version],
        "backend": list(capabilities.backends),
        "cpu_count": [str(capabilities.cpu_count)],
        "machine": [capabilities.machine],
        "ram_gib": [] if memory is None else [f"{memory / _GIB:.1f}"],
    }
    for model in reported.running:
        facts[_RUNS + model.family] = [model.version]
    selectable = {name: _values(values) for name, values in facts.items()}
    return {name: values for name, values in sorted(selectable.items()) if values}


def merged(device_id: str, labels: Labels, facts: Facts) -> Attributes:
    """Return all attributes of a device."""
    return {
        ID: frozenset({device_id}),
        **{name: frozenset({value}) for name, value in labels.items()},
        **{name: frozenset(values) for name, values in facts.items()},
    }


def changed_labels(labels: Labels, changes: Mapping[str, str | None]) -> Labels:
    """Return the labels with some set, and those whose new value is None removed.

    Raises:
        RefusedError: a name or value is malformed, the name is a fact's, or there are too many.
    """
    for name, value in changes.items():
        try:
            names.label_name(name)
            if value is not None:
                names.label_value(value)
        except ProtocolError as error:
            raise RefusedError(str(error)) from error
        if name in FACT_NAMES or name.startswith(_RUNS):
            raise RefusedError(f"{name!r} is a fact that devices report; name the label otherwise")
    result = {
        name: value for name, value in sorted({**labels, **changes}.items()) if value is not None
    }
    if len(result) > names.MAX_LABELS:
        raise RefusedError(f"a device may have {names.MAX_LABELS} labels, this makes {len(result)}")
    return result


def encode(values: Labels | Facts) -> str:
    """Return labels or facts as stored."""
    return msgspec.json.encode(values).decode()


def decode_labels(stored: str) -> Labels:
    """Read stored labels."""
    return msgspec.json.decode(stored, type=Labels)


def decode_facts(stored: str) -> Facts:
    """Read stored facts."""
    return msgspec.json.decode(stored, type=Facts)


def _values(texts: Sequence[str]) -> list[str]:
    return sorted(set(_selectable(texts)))


def _selectable(texts: Sequence[str]) -> Iterator[str]:
    """Yield the texts as a selector can write them; nothing of what cannot be written remains."""
    for text in texts:
        value = _NOT_IN_VALUES.sub("-", text)[:_MAX_VALUE].strip("._:/+@-")
        if value:
            yield value
