"""Each sequence number is taken once, whatever the order and however often it comes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.telemetry.reception import MAX_AHEAD, Reception, Span, Verdict

FRESH, DUPLICATE, OVERLAP, TOO_FAR = (
    Verdict.FRESH,
    Verdict.DUPLICATE,
    Verdict.OVERLAP,
    Verdict.TOO_FAR,
)


@pytest.mark.parametrize(
    ("offers", "verdicts", "acked", "ahead"),
    [
        ([(1, 1)], [FRESH], 1, []),
        ([(2, 2)], [FRESH], 0, [(2, 2)]),
        ([(2, 2), (1, 1)], [FRESH, FRESH], 2, []),
        ([(1, 1), (1, 1)], [FRESH, DUPLICATE], 1, []),
        ([(3, 3), (3, 3)], [FRESH, DUPLICATE], 0, [(3, 3)]),
        ([(1, 5)], [FRESH], 5, []),
        ([(1, 5), (3, 4)], [FRESH, DUPLICATE], 5, []),
        ([(1, 2), (2, 3)], [FRESH, OVERLAP], 3, []),
        ([(4, 5), (1, 4)], [FRESH, OVERLAP], 5, []),
        ([(4, 5), (7, 8), (6, 6)], [FRESH, FRESH, FRESH], 0, [(4, 8)]),
        ([(4, 5), (7, 8), (1, 3)], [FRESH, FRESH, FRESH], 5, [(7, 8)]),
        ([(2, 2), (4, 4), (1, 5)], [FRESH, FRESH, OVERLAP], 5, []),
    ],
)
def test_table(offers: list[Span], verdicts: list[Verdict], acked: int, ahead: list[Span]) -> None:
    reception = Reception()
    assert [reception.offer(*offer) for offer in offers] == verdicts
    assert (reception.acked, reception.ahead) == (acked, ahead)


def test_reversed_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="covers_from 3"):
        Reception().offer(3, 2)


def test_gaps_are_bounded_and_filling_the_first_one_goes_on() -> None:
    reception = Reception()
    for number in range(MAX_AHEAD):
        assert reception.offer(2 * number + 3, 2 * number + 3) is FRESH
    beyond = 2 * MAX_AHEAD + 100
    assert reception.offer(beyond, beyond) is TOO_FAR
    assert reception.offer(1, 2) is FRESH
    assert reception.offer(beyond, beyond) is FRESH


spans = st.tuples(st.integers(1, 60), st.integers(0, 6)).map(lambda pair: (pair[0], sum(pair)))


@given(st.lists(spans, max_size=60))
def test_matches_a_set_of_numbers(offers: list[Span]) -> None:
    reception, received = Reception(), set[int]()
    for first, last in offers:
        numbers = set(range(first, last + 1))
        verdict = reception.offer(first, last)
        if numbers <= received:
            assert verdict is DUPLICATE
        elif numbers & received:
            assert verdict is OVERLAP
        else:
            assert verdict is FRESH
        received |= numbers
    gapless = next(number for number in range(1, 100) if number not in received) - 1
    assert reception.acked == gapless
    ahead = {n for start, end in reception.ahead for n in range(start, end + 1)}
    assert ahead == {number for number in received if number > gapless}


@given(st.lists(spans, max_size=20))
def test_the_stored_form_is_the_same_state(offers: list[Span]) -> None:
    reception = Reception()
    for offer in offers:
        reception.offer(*offer)
    assert reception == Reception.decode(acked=reception.acked, ahead=reception.encode_ahead())
