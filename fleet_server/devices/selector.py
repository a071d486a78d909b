"""The selector language: which devices, by their labels and facts. Text in, requirements out; pure.

::

    selector    = "*" | requirement { "," requirement }
    requirement = name | "!" name
                | name ("=" | "==" | "!=") value
                | name ("in" | "notin") "(" value { "," value } ")"
                | name ("<" | "<=" | ">" | ">=") number

All requirements must hold. An attribute may have several values (a device's accelerators): ``=``
and ``in`` ask whether one of them is among those named, ``!=`` and ``notin`` whether none is, so
these also hold for a device without the attribute, as in Kubernetes, whose language this extends by
numbers. A comparison holds if one of the values is such a number.

`fleet_server.devices.selection` says the same in SQL.
"""

import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from operator import ge, gt, le, lt

from fleet_protocol import names
from fleet_protocol.errors import ProtocolError
from fleet_server.errors import MalformedError

ID = "id"
"""The device's id is an attribute of every device."""

MAX_LENGTH = 2000
MAX_REQUIREMENTS = 16
MAX_VALUES = 64

Attributes = Mapping[str, AbstractSet[str]]
"""A device's labels and facts: the values of each name."""

_NUMBER = re.compile(r"\A-?[0-9]{1,12}(?:\.[0-9]{1,6})?\Z")
_TOKEN = re.compile(r"\s*(?:(?P<word>[A-Za-z0-9._:/+@-]+)|(?P<sign>==|!=|<=|>=|[=!<>(),*]))")


class SelectorError(MalformedError):
    """A selector cannot be read.

    Attributes:
        position: index in the text of the character where it stops making sense.
    """

    def __init__(self, problem: str, *, text: str, position: int) -> None:
        shown = f"{text[:position][-30:]}»{text[position:][:30]}"
        super().__init__(f"selector, character {position + 1}: {problem} (at the » in {shown!r})")
        self.position = position


class Comparison(StrEnum):
    """How an attribute is compared with a number."""

    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="


_HOLDS = {
    Comparison.LESS: lt,
    Comparison.AT_MOST: le,
    Comparison.MORE: gt,
    Comparison.AT_LEAST: ge,
}


@dataclass(frozen=True, slots=True)
class Has:
    """The attribute is there."""

    name: str

    def __str__(self) -> str:
        return self.name

    def holds(self, attributes: Attributes) -> bool:
        """Say whether a device fulfils it."""
        return bool(attributes.get(self.name))


@dataclass(frozen=True, slots=True)
class Lacks:
    """The attribute is not there."""

    name: str

    def __str__(self) -> str:
        return f"!{self.name}"

    def holds(self, attributes: Attributes) -> bool:
        """Say whether a device fulfils it."""
        return not attributes.get(self.name)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of the attribute's values is among these (sorted, each once)."""

    name: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        if len(self.values) == 1:
            return f"{self.name}={self.values[0]}"
        return f"{self.name} in ({','.join(self.values)})"

    def holds(self, attributes: Attributes) -> bool:
        """Say whether a device fulfils it."""
        return not attributes.get(self.name, frozenset()).isdisjoint(self.values)


@dataclass(frozen=True, slots=True)
class NoneOf:
    """None of the attribute's values is among these (sorted, each once)."""

    name: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        if len(self.values) == 1:
            return f"{self.name}!={self.values[0]}"
        return f"{self.name} notin ({','.join(self.values)})"

    def holds(self, attributes: Attributes) -> bool:
        """Say whether a device fulfils it."""
        return attributes.get(self.name, frozenset()).isdisjoint(self.values)


@dataclass(frozen=True, slots=True)
class Compared:
    """One of the attribute's values is a number for which the comparison holds."""

    name: str
    comparison: Comparison
    number: float

    def __str__(self) -> str:
        digits = f"{self.number:.6f}".rstrip("0").rstrip(".")
        return f"{self.name}{self.comparison}{digits}"

    def holds(self, attributes: Attributes) -> bool:
        """Say whether a device fulfils it."""
        numbers = (number_of(value) for value in attributes.get(self.name, ()))
        holds = _HOLDS[self.comparison]
        return any(holds(number, self.number) for number in numbers if number is not None)


Requirement = Has | Lacks | AnyOf | NoneOf | Compared


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements must hold; none at all is every device."""

    requirements: tuple[Requirement, ...] = ()

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements)) or "*"

    def holds(self, attributes: Attributes) -> bool:
        """Say whether a device is selected."""
        return all(requirement.holds(attributes) for requirement in self.requirements)


def number_of(value: str) -> float | None:
    """Return the number that an attribute's value is, or None."""
    return float(value) if _NUMBER.match(value) else None


def parse(text: str) -> Selector:
    """Read a selector.

    Raises:
        SelectorError: it is not one, or larger than the limits of this module.
    """
    if len(text) > MAX_LENGTH:
        problem = f"a selector may have {MAX_LENGTH} characters, this one has {len(text)}"
        raise SelectorError(problem, text=text, position=MAX_LENGTH)
    return _Parser(text).selector()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    """``word``, ``sign`` or ``end``."""
    text: str
    position: int


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split()
        self._next = 0

    def selector(self) -> Selector:
        if self._peek().kind == "end":
            raise self._error("the selector is empty; `*` selects every device")
        if self._take_sign("*"):
            self._expect_end()
            return Selector()
        requirements = [self._requirement()]
        while self._take_sign(","):
            if len(requirements) == MAX_REQUIREMENTS:
                raise self._error(f"a selector may have {MAX_REQUIREMENTS} requirements")
            requirements.append(self._requirement())
        self._expect_end()
        return Selector(tuple(requirements))

    def _requirement(self) -> Requirement:
        if self._take_sign("!"):
            return Lacks(self._name())
        name = self._name()
        operator = self._peek()
        if operator.text in {"=", "=="}:
            self._next += 1
            return AnyOf(name, (self._value(),))
        if operator.text == "!=":
            self._next += 1
            return NoneOf(name, (self._value(),))
        if operator.kind == "sign" and operator.text in set(Comparison):
            if name == ID:
                raise self._error("an id is no number")
            self._next += 1
            return Compared(name, Comparison(operator.text), self._number())
        if operator.kind == "word":
            return self._membership(name, operator)
        return Has(name)

    def _membership(self, name: str, operator: _Token) -> Requirement:
        if operator.text not in {"in", "notin"}:
            raise self._error(f"expected an operator after {name!r}, such as = or in")
        self._next += 1
        self._expect("(")
        values = [self._value()]
        while self._take_sign(","):
            if len(values) == MAX_VALUES:
                raise self._error(f"a requirement may name {MAX_VALUES} values")
            values.append(self._value())
        self._expect(")")
        distinct = tuple(sorted(set(values)))
        return AnyOf(name, distinct) if operator.text == "in" else NoneOf(name, distinct)

    def _name(self) -> str:
        return self._checked(self._word("the name of a label or fact"), names.label_name)

    def _value(self) -> str:
        return self._checked(self._word("a value"), names.label_value)

    def _number(self) -> float:
        token = self._word("a number")
        number = number_of(token.text)
        if number is None:
            problem = (
                f"{token.text[:40]!r} is not a number of at most 12 digits and 6 more of a fraction"
            )
            raise SelectorError(problem, text=self._text, position=token.position)
        return number

    def _checked(self, token: _Token, check: Callable[[str], str]) -> str:
        try:
            return check(token.text)
        except ProtocolError as error:
            raise SelectorError(str(error), text=self._text, position=token.position) from error

    def _word(self, what: str) -> _Token:
        token = self._peek()
        if token.kind != "word":
            raise self._error(f"expected {what}")
        self._next += 1
        return token

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take_sign(self, sign: str) -> bool:
        token = self._peek()
        found = token.kind == "sign" and token.text == sign
        self._next += found
        return found

    def _expect(self, sign: str) -> None:
        if not self._take_sign(sign):
            raise self._error(f"expected {sign!r}")

    def _expect_end(self) -> None:
        if self._peek().kind != "end":
            raise self._error("expected a comma or the end")

    def _error(self, problem: str) -> SelectorError:
        return SelectorError(problem, text=self._text, position=self._peek().position)

    def _split(self) -> list[_Token]:
        tokens: list[_Token] = []
        text = self._text.rstrip()
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                position = at + len(text[at:]) - len(text[at:].lstrip())
                raise SelectorError(
                    f"{text[position]!r} has no meaning here", text=self._text, position=position
                )
            kind = str(match.lastgroup)
            tokens.append(_Token(kind, match[kind], match.start(kind)))
            at = match.end()
        return [*tokens, _Token("end", "", len(text))]
