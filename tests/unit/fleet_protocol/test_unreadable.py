"""What a person is told about JSON of another form: the field, what it must be, what there is."""

from enum import StrEnum
from typing import Annotated, Literal

import msgspec
import pytest

from fleet_protocol import messages
from fleet_protocol.commands import Action, decode_action
from fleet_protocol.errors import ProtocolError
from fleet_protocol.names import Family
from fleet_protocol.unreadable import problem


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


class Part(msgspec.Struct, forbid_unknown_fields=True):
    family: Family
    size: Size = Size.SMALL
    colour: Literal["red", "blue"] | None = None


class Order(msgspec.Struct, forbid_unknown_fields=True):
    count: Annotated[int, msgspec.Meta(ge=1)]
    parts: Annotated[list[Part], msgspec.Meta(max_length=2)] = []
    by_name: dict[Family, Part] = {}
    note: str | None = None
    bare: Annotated[str, msgspec.Meta(pattern="^x$")] = "x"


FAMILY = "a model family: a-z, 0-9, hyphens, underscores"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is no JSON: Input data was truncated"),
        ("{]", "it is no JSON: object keys must be strings (byte 1)"),
        ("[]", "it must be an object, not a list"),
        ("{}", "`count` is missing"),
        ('{"count": "1"}', "`count` must be a whole number, not text"),
        ('{"count": 0}', "`count` must be a whole number >= 1"),
        ('{"count": 1, "note": 2}', "`note` must be text or null, not a whole number"),
        ('{"count": 1, "bare": "y"}', "`bare` must be of another form"),
        ('{"cuont": 1}', "there is no field `cuont`; there is count, parts, by_name, note, bare"),
        ('{"count": 1, "parts": [{}]}', "`parts[...].family` is missing"),
        ('{"count": 1, "parts": [{"family": "A"}]}', f"`parts[...].family` must be {FAMILY}"),
        (
            '{"count": 1, "parts": [{"family": "a", "x": 1}]}',
            "there is no field `x` in `parts[...]`; there is family, size, colour",
        ),
        (
            '{"count": 1, "parts": [{"family": "a", "size": "huge"}]}',
            "`parts[...].size` is 'huge'; there is small, large",
        ),
        (
            '{"count": 1, "parts": [{"family": "a", "colour": "pink"}]}',
            "`parts[...].colour` is 'pink'; there is blue, red",
        ),
        ('{"count": 1, "by_name": {"A": {"family": "a"}}}', f"a key of `by_name` must be {FAMILY}"),
        (
            '{"count": 1, "by_name": {"a": {"family": "a", "size": 1}}}',
            "`by_name[...].size` must be text, not a whole number",
        ),
    ],
)
def test_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode(text, type=Order)
    found = problem(caught.value, Order)
    assert found.replace("[0]", "[...]") == said


def test_what_is_wrong_beside_json() -> None:
    assert problem(RecursionError(), Order) == "it is nested too deeply"
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode('{"kind": "dance"}', type=Action)
    assert problem(caught.value, Action).startswith("`kind` is 'dance'; there is diagnostics, logs")


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"{}", "not an enroll request: `token` is missing"),
        (b'{"token": 1}', "not an enroll request: `token` must be text, not a whole number"),
        (b" " * (messages.MAX_MESSAGE_BYTES + 1), "an enroll request has "),
    ],
)
def test_a_message_is_called_by_words(payload: bytes, said: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        messages.decode(payload, messages.EnrollRequest)
    assert str(caught.value).startswith(said)


def test_arguments_of_a_command() -> None:
    with pytest.raises(ProtocolError, match="arguments are wrong: `lines` must be a whole number"):
        decode_action(b'{"kind": "logs", "lines": "many"}')
