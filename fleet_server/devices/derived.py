"""Terms that no selector can name: what lists look for instead of what devices do *not* have. Pure.

Each device has one value of each. Their names begin as no label's or fact's does.

- `NAMES` stands for the set of names of its attributes. All devices of one value have the same
  names, so what one of them lacks, they all lack: devices without an attribute are those of a few
  values, in the order of their ids.
- `STEM` is the id without the digits at its end. What is in the stem is in all ids that begin with
  it, and a text that ends in another character than a digit is in an id only if it is in its stem.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NAMES = "~names"
STEM = "~stem"
NEVER = "-"
"""No device's value of either."""

_DIGITS = "0123456789"
_KEY_CHARACTERS = 32


def names_key(names: Iterable[str]) -> str:
    """Return what stands for a set of names: as good as unique, whatever devices report."""
    joined = ",".join(sorted(set(names)))  # no name has a comma
    return hashlib.sha256(joined.encode()).hexdigest()[:_KEY_CHARACTERS]


def stem(device_id: str) -> str:
    """Return an id without the digits at its end."""
    return device_id.rstrip(_DIGITS)


@dataclass(frozen=True, slots=True)
class Stems:
    """Those stems whose ids may contain a text.

    Attributes:
        certain: all of their ids contain it.
        possible: some of their ids may, where the digits begin with the text's own.
    """

    certain: Sequence[str]
    possible: Sequence[str]


def stems_with(text: str, stems: Sequence[str]) -> Stems:
    """Return those of some stems whose ids may contain a text."""
    certain = [each for each in stems if text in each]
    words = stem(text)
    if words == text:
        return Stems(certain, ())
    # A text of digits alone may be anywhere among the digits of an id.
    return Stems(certain, [each for each in stems if text not in each and each.endswith(words)])
