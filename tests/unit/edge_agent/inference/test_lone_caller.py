"""Who calls alone, and for how long another caller is remembered."""

from edge_agent.inference.lone_caller import ALONE_S, LoneCaller


def test_the_only_caller_is_alone_until_another_one_calls() -> None:
    lone = LoneCaller()
    one, two = object(), object()
    assert lone.is_alone(one, 1.0)
    assert lone.is_alone(one, 1.001)
    assert not lone.is_alone(two, 1.002)
    assert not lone.is_alone(one, 1.003)
    assert not lone.is_alone(one, 1.002 + 2 * ALONE_S)
    assert lone.is_alone(one, 1.003 + 2 * ALONE_S)


def test_a_caller_that_is_not_known_is_never_alone_and_leaves_nobody_alone() -> None:
    lone = LoneCaller()
    assert not lone.is_alone(None, 1.0)
    assert not lone.is_alone(None, 9.0)
    one = object()
    assert not lone.is_alone(one, 9.001)
    assert lone.is_alone(one, 9.001 + 2 * ALONE_S)
