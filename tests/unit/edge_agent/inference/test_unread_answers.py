"""Who has to go when answers that nobody reads take too much memory."""

import pytest

from edge_agent.inference.unread_answers import UnreadAnswers


@pytest.mark.parametrize(
    ("before", "now", "leaving"),
    [
        ({}, {"a": 150}, []),  # an answer that has just been written
        ({"a": 90}, {"a": 90}, []),  # there is room for it
        ({"a": 150}, {"a": 149}, []),  # slow, and reading
        ({"a": 150}, {"a": 150}, ["a"]),
        ({"a": 50}, {"a": 150}, ["a"]),  # asks for more and reads nothing
        ({"a": 60, "b": 80, "c": 70}, {"a": 60, "b": 80, "c": 70}, ["b", "c"]),
        ({"a": 60, "b": 80, "c": 70}, {"a": 60, "b": 10, "c": 70}, ["c"]),
        ({"a": 60}, {"a": 60, "b": 80}, ["a"]),
        ({"a": 150}, {"a": 0, "b": 90}, []),
    ],
)
def test_those_who_read_nothing_go_when_there_is_no_room(
    before: dict[str, int], now: dict[str, int], leaving: list[str]
) -> None:
    answers = UnreadAnswers[str](100)
    assert not answers.to_be_cut(before)
    assert answers.to_be_cut(now) == leaving


def test_who_has_gone_is_forgotten() -> None:
    answers = UnreadAnswers[str](100)
    assert not answers.to_be_cut({"a": 150})
    assert answers.to_be_cut({"a": 150}) == ["a"]
    assert not answers.to_be_cut({})
    assert not answers.to_be_cut({"a": 150})
