"""What goes out when: at once what is new, little into the void, and soon what was lost."""

import random

import pytest

from edge_agent.control.flight import MOST, Flight

RESEND_S = 30.0
T, E = "telemetry", "event"


class Fleetless:
    """One device's outbox, and a server that is there or not.

    Attributes:
        unreadable: positions that the server never acknowledges, nor what lies beyond them.
    """

    def __init__(self, waiting: int = 0, *, unreadable: frozenset[int] = frozenset()) -> None:
        self.flight = Flight(resend_after_s=RESEND_S)
        self.waiting = dict.fromkeys(range(1, waiting + 1), T)
        self.unreadable = unreadable
        self.got: set[int] = set()
        self.published = 0
        self.now_s = 0.0

    def append(self, stream: str = T) -> None:
        self.waiting[max(self.waiting, default=0) + 1] = stream

    def look(self, *, server: bool) -> list[int]:
        """Publish what is due; a server that is there has stored it and answers."""
        due = self.flight.due(dict(list(self.waiting.items())[:MOST]), self.now_s)
        for at in due:
            self.flight.published(at, self.waiting[at], self.now_s)
        self.published += len(due)
        if server:
            self.got |= set(due) - self.unreadable
            self.acknowledge(due)
        return due

    def acknowledge(self, due: list[int]) -> None:
        for stream in {self.waiting[at] for at in due if at in self.got}:
            mine = [at for at, of in self.waiting.items() if of == stream]
            missing = next((at for at in mine if at not in self.got), float("inf"))
            done = [at for at in mine if at < missing]
            for at in done:
                del self.waiting[at]
            if not done:
                self.flight.heard(self.now_s)


def test_a_server_that_speaks_first_is_not_sent_everything_at_once() -> None:
    outbox = Fleetless(waiting=50)
    outbox.flight.heard(0.0)
    assert outbox.look(server=False) == list(range(1, 9))


def test_the_message_behind_an_unreadable_one_is_tried_first() -> None:
    """Its acknowledgement makes room for the rest."""
    outbox = Fleetless()
    outbox.append(E)
    for _ in range(40):
        outbox.append()
    outbox.unreadable = frozenset({1})
    while outbox.flight.room > 1:
        due = outbox.look(server=False)
        outbox.now_s += RESEND_S
    assert due == [1, 2]


def test_what_is_new_goes_out_once_and_at_once() -> None:
    outbox = Fleetless()
    outbox.look(server=False)
    for at in range(1, 20):
        outbox.append()
        assert outbox.look(server=False) == [at]
    assert outbox.look(server=False) == []


def test_a_server_that_is_away_gets_little() -> None:
    outbox = Fleetless(waiting=50)
    for _ in range(120):
        outbox.look(server=False)
        outbox.now_s += RESEND_S
    assert outbox.published <= 8 + 2 * 120


@pytest.mark.parametrize("waiting", [1, 10, 64, 300])
def test_a_server_that_comes_back_has_everything_after_a_few_answers(waiting: int) -> None:
    outbox = Fleetless(waiting=waiting)
    for _ in range(5):
        outbox.look(server=False)
        outbox.now_s += RESEND_S - 1
    outbox.flight.heard(outbox.now_s)
    before = outbox.published
    answers = 0
    while outbox.waiting:
        outbox.look(server=True)
        answers += 1
    assert answers <= 6 + waiting / MOST
    assert outbox.published - before <= 1.2 * waiting + 2


def test_what_was_passed_over_is_due_at_once() -> None:
    outbox = Fleetless(waiting=3)
    outbox.append(E)
    outbox.look(server=False)
    outbox.got = {1, 3}
    outbox.acknowledge([1, 3])
    assert outbox.look(server=False) == [], "what was sent after it may still arrive"
    outbox.now_s += RESEND_S
    outbox.got |= {2}
    assert outbox.look(server=False)[0] == 2


def test_another_stream_passes_nothing_over() -> None:
    outbox = Fleetless(waiting=2)
    outbox.append(E)
    outbox.look(server=False)
    outbox.got = {3}
    outbox.acknowledge([3])
    assert outbox.look(server=False) == []


def test_a_server_that_is_slow_is_asked_for_less() -> None:
    outbox = Fleetless(waiting=64)
    outbox.flight.room = MOST
    assert len(outbox.look(server=False)) == 64
    outbox.now_s += 1
    outbox.flight.heard(outbox.now_s)
    assert outbox.look(server=False) == [], "it may still be at it"
    outbox.now_s += RESEND_S
    assert len(outbox.look(server=False)) == MOST // 2


def test_what_the_server_cannot_read_does_not_hide_the_rest() -> None:
    outbox = Fleetless(waiting=9, unreadable=frozenset({1}))
    outbox.append(E)
    again: set[int] = set()
    for _ in range(40):
        again |= set(outbox.look(server=True))
        outbox.now_s += RESEND_S
    assert outbox.got == set(range(2, 11))
    assert list(outbox.waiting.values()) == [T] * 9, "its stream waits for it"
    assert again == set(range(1, 11)), "the server learns that it lies beyond a gap"


@pytest.mark.parametrize("seed", range(20))
def test_everything_arrives_whatever_is_lost(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 (data of a test)
    outbox = Fleetless(waiting=dice.randrange(80))
    for _ in range(200):
        for _ in range(dice.randrange(3)):
            outbox.append(dice.choice([T, E]))
        outbox.look(server=dice.random() < 0.3)
        outbox.now_s += dice.uniform(0, 20)
        if dice.random() < 0.1:
            outbox.flight.heard(outbox.now_s)
    for _ in range(100):
        outbox.look(server=True)
        outbox.now_s += RESEND_S
    assert outbox.waiting == {}
