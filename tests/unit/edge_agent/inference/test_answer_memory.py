"""How much answers over gRPC may take until they are read."""

import pytest

from edge_agent.inference.answer_memory import SMALL_BYTES, AnswerMemory, StreamAnswers
from edge_agent.inference.errors import RefusedError
from edge_agent.inference.request_memory import RequestMemory

LIMIT = 1000


def test_answers_take_half_and_one_alone_what_is_free() -> None:
    memory = RequestMemory(LIMIT)
    answers = AnswerMemory(memory)
    answers.hold(900)
    with pytest.raises(RefusedError, match=r"take 900 bytes, with 1 .*500 \(half of the setting"):
        answers.hold(1)
    answers.let_go(900)
    answers.hold(200)
    answers.hold(300)
    with pytest.raises(RefusedError, match="were not read yet take 500 bytes"):
        answers.hold(1)
    memory.reserve(500)
    answers.let_go(300)
    memory.reserve(250)
    with pytest.raises(RefusedError, match="take 950 bytes, with 51 for this one"):
        answers.hold(51)
    answers.hold(50)


def test_a_streams_first_answers_are_free_and_its_end_gives_everything_back() -> None:
    memory = RequestMemory(LIMIT)
    answers = AnswerMemory(memory)
    stream = StreamAnswers(answers)
    stream.add(SMALL_BYTES - 50)
    stream.add_failure(50)
    memory.reserve(LIMIT)  # nothing was taken
    memory.give_back(LIMIT)
    stream.add(300)
    stream.add(200)
    with pytest.raises(RefusedError):
        stream.add(1)
    stream.written(SMALL_BYTES - 50)  # what is left is within the first bytes again
    memory.reserve(LIMIT)
    memory.give_back(LIMIT)
    stream.add(SMALL_BYTES)
    stream.end()
    stream.add(LIMIT * 10)  # computed to its end though the caller has gone
    memory.reserve(LIMIT)
