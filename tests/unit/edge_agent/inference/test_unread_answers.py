"""Who has to go when answers that nobody reads take the memory that others need."""

import pytest

from edge_agent.inference.unread_answers import UnreadAnswers


@pytest.mark.parametrize(
    ("before", "now", "wanted", "leaving"),
    [
        ({}, {"a": 150}, 10, []),  # an answer that has just been written
        ({"a": 150}, {"a": 150}, 0, []),  # nobody needs the room
        ({"a": 150}, {"a": 149}, 10, []),  # slow, and reading
        ({"a": 150}, {"a": 150}, 10, ["a"]),
        ({"a": 50}, {"a": 150}, 10, ["a"]),  # asks for more and reads nothing
        ({"a": 60, "b": 80, "c": 70}, {"a": 60, "b": 80, "c": 70}, 100, ["b", "c"]),
        ({"a": 60, "b": 80, "c": 70}, {"a": 60, "b": 10, "c": 70}, 70, ["c"]),
        ({"a": 60}, {"a": 60, "b": 80}, 10, ["a"]),
        ({"a": 0}, {"a": 0}, 10, []),
    ],
)
def test_those_who_read_nothing_go_when_others_need_the_room(
    before: dict[str, int], now: dict[str, int], wanted: int, leaving: list[str]
) -> None:
    answers = UnreadAnswers[str]()
    assert not answers.to_be_cut(before, 1000)
    assert answers.to_be_cut(now, wanted) == leaving


def test_who_has_gone_is_forgotten() -> None:
    answers = UnreadAnswers[str]()
    assert not answers.to_be_cut({"a": 150}, 10)
    assert not answers.to_be_cut({}, 10)
    assert not answers.to_be_cut({"a": 150}, 10)
    assert answers.to_be_cut({"a": 150}, 10) == ["a"]
