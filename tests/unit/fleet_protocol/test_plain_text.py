"""Nothing that a terminal obeys is printed, and JSON stays the same JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol.plain_text import plain, plain_lines

TEXTS = st.text(st.characters(exclude_categories=()), max_size=30)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zürich, 東京 🙂", "Zürich, 東京 🙂"),
        ("\x1b[2Jgone", r"\u001b[2Jgone"),
        ("\x1b]52;c;cm0gLXJm\x07", r"\u001b]52;c;cm0gLXJm\u0007"),
        ("\x9b31mred", r"\u009b31mred"),
        ("a\rb\x7f\tc\nd", r"a\u000db\u007f\u0009c\u000ad"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\udc80", r"\udc80"),
        ("\U000e0041", r"\udb40\udc41"),
    ],
)
def test_controls_are_shown(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(TEXTS)
def test_what_is_printed_prints(text: str) -> None:
    assert plain(text).isprintable()
    assert all(map(str.isprintable, plain_lines(text).split("\n")))


@given(TEXTS)
def test_json_means_the_same(text: str) -> None:
    written = json.dumps({"said": text}, ensure_ascii=False, indent=1)
    assert json.loads(plain_lines(written)) == json.loads(json.dumps({"said": text}))
