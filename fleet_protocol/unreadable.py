"""Says in words what is wrong with JSON that does not have the form of its type.

msgspec names types and regular expressions; a person is told the field, what it must be, and what
there is to choose from, as far as the type says so.
"""

import re
from collections.abc import Iterator

import msgspec
from msgspec import inspect

_PLACE = re.compile(r"(.*) - at (`key` in )?`\$\.?(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_NO_CHOICE = re.compile(r"Invalid (?:enum )?value (.*)", re.DOTALL)
_NO_MATCH = re.compile(r"Expected `str` matching regex ")
_EXPECTED = re.compile(r"Expected (.*?)(?:, got (.*))?", re.DOTALL)

_WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
    "bytes": "text in base64",
}


def problem(error: Exception, kind: object) -> str:
    """Return a sentence about why JSON could not be read.

    Args:
        error: what reading it raised: msgspec's, or that of a text that is no UTF-8 or is nested
            too deeply.
        kind: the type that it was read as.
    """
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if not isinstance(error, msgspec.ValidationError):
        return f"it is no JSON: {str(error).removeprefix('JSON is malformed: ')}"
    found = _PLACE.fullmatch(str(error))
    said, key, place = found.groups() if found else (str(error), None, "")
    path = re.findall(r"[^.\[\]]+", place) + (["..."] if key else [])
    nodes = list(_at(inspect.type_info(kind), path))
    subject = f"`{place}`" if place else "it"
    return _sentence(said, f"a key of {subject}" if key else subject, nodes, place=place)


def _sentence(said: str, subject: str, nodes: list[inspect.Type], *, place: str) -> str:
    if missing := _MISSING.fullmatch(said):
        return f"`{'.'.join(filter(None, (place, missing[1])))}` is missing"
    if unknown := _UNKNOWN.fullmatch(said):
        where = f" in `{place}`" if place else ""
        return f"there is no field `{unknown[1]}`{where}; {_listed(_fields(nodes))}"
    if no_choice := _NO_CHOICE.fullmatch(said):
        return f"{subject} is {no_choice[1]}; {_listed(_choices(nodes))}"
    if _NO_MATCH.match(said):
        return f"{subject} must be {_form(nodes)}"
    if expected := _EXPECTED.fullmatch(said):
        instead = f", not {_in_words(expected[2])}" if expected[2] else ""
        return f"{subject} must be {_in_words(expected[1])}{instead}"
    return f"{subject}: {said}"


def _at(node: inspect.Type, path: list[str]) -> Iterator[inspect.Type]:
    """Yield the types that a value at a path may have; of what is in a map, its key's first."""
    if isinstance(node, inspect.UnionType):
        for one in node.types:
            yield from _at(one, path)
    elif not path:
        yield node
    else:
        for inner in _within(node, path[0]):
            yield from _at(inner, path if isinstance(node, inspect.Metadata) else path[1:])


def _within(node: inspect.Type, name: str) -> list[inspect.Type]:
    if isinstance(node, inspect.Metadata):
        return [node.type]
    if isinstance(node, inspect.StructType):
        tag = [inspect.LiteralType((str(node.tag),))] if node.tag_field == name else []
        return [*tag, *(field.type for field in node.fields if field.encode_name == name)]
    if isinstance(node, inspect.ListType):
        return [node.item_type]
    if isinstance(node, inspect.DictType):
        return [node.key_type, node.value_type]
    return []


def _fields(nodes: list[inspect.Type]) -> list[str]:
    return [
        field.encode_name
        for node in nodes
        if isinstance(node, inspect.StructType)
        for field in node.fields
    ]


def _choices(nodes: list[inspect.Type]) -> list[str]:
    found: list[str] = []
    for node in nodes:
        if isinstance(node, inspect.LiteralType):
            found += map(str, node.values)
        elif isinstance(node, inspect.EnumType):
            found += [str(each.value) for each in node.cls]
    return found


def _form(nodes: list[inspect.Type]) -> str:
    for node in nodes:
        described = (node.extra_json_schema or {}) if isinstance(node, inspect.Metadata) else {}
        if "description" in described:
            return str(described["description"])
    return "of another form"


def _listed(names: list[str]) -> str:
    shown = ", ".join(name or repr(name) for name in dict.fromkeys(names))
    return f"there is {shown}" if shown else "there is none of that name"


def _in_words(types: str) -> str:
    return re.sub(r"`([^`]*)`", lambda quoted: _alternatives(quoted[1]), types)


def _alternatives(types: str) -> str:
    return " or ".join(_WORDS.get(name, name) for name in types.split(" | "))
