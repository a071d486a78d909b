"""When the supervisor takes a runtime to hang."""

import socket
from pathlib import Path

import pytest

from edge_agent.hang_watch import QUESTIONS, HangWatch, Silence


@pytest.mark.parametrize(
    ("answers", "hangs"),
    [
        ("", False),
        ("-" * 1000, False),  # it boots
        ("+" + "-" * (QUESTIONS - 1), False),
        ("+" + "-" * QUESTIONS, True),
        ("--+" + "-" * QUESTIONS, True),
        ("+" + "-" * (QUESTIONS - 1) + "+" + "-" * (QUESTIONS - 1), False),
    ],
)
def test_silence_counts_after_the_first_answer_and_in_a_row(answers: str, hangs: bool) -> None:  # noqa: FBT001 (a table)
    silence = Silence()
    assert any(silence.after(answered=answer == "+") for answer in answers) is hangs


class Runtime:
    """An admin socket that answers what has been asked, when it is told to."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(str(path))
        self.socket.listen()

    def answer(self, text: bytes = b"HTTP/1.1 503 Service Unavailable\r\n\r\n") -> None:
        asking, _ = self.socket.accept()
        with asking:
            assert asking.recv(4096).startswith(b"GET /v2/health/live ")
            asking.sendall(text)


def test_it_asks_one_question_at_a_time_and_a_new_life_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    watch = HangWatch(path, hang_s=60.0)
    watch.begin(0.0)
    assert watch.due_s == 10.0
    assert not watch.tick(10.0)
    assert watch.descriptor == -1  # nobody listens yet
    runtime = Runtime(path)
    assert not watch.tick(20.0)
    runtime.answer()
    watch.read()
    assert watch.descriptor == -1
    ticks = [watch.tick(30.0 + 10 * number) for number in range(QUESTIONS + 1)]
    assert ticks == [*[False] * QUESTIONS, True]
    watch.begin(100.0)
    assert not any(watch.tick(110.0 + number) for number in range(3 * QUESTIONS))
    runtime.socket.close()


def test_what_is_no_answer_counts_as_silence(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    runtime = Runtime(path)
    watch = HangWatch(path, hang_s=60.0)
    watch.begin(0.0)
    hangs = []
    for number, text in enumerate([b"HTTP/1.1 200 OK\r\n\r\n", *[b"gibberish"] * QUESTIONS]):
        hangs.append(watch.tick(float(number)))
        runtime.answer(text)
        watch.read()
    assert [*hangs, watch.tick(99.0)] == [*[False] * (QUESTIONS + 1), True]
    runtime.socket.close()
