"""Events about refusals: each reason once, and no more of them than a stranger may cause."""

from edge_agent.control.refusals import EventBudget
from fleet_protocol.messages import EventKind
from tests.simulators.control_device import ControlDevice
from tests.simulators.device_clock import ManualClock


def told(device: ControlDevice) -> list[str]:
    return [event.detail for event in device.events(EventKind.DELIVERY_REFUSED)]


async def test_the_same_reason_is_told_once_until_it_was_over(device: ControlDevice) -> None:
    refusals = device.parts._refusals
    for _ in range(3):
        await refusals.tell("a", family="animals", version="1.0.0")
    await refusals.tell("b")
    await refusals.over()
    await refusals.tell("b")
    assert told(device) == ["a", "b", "b"]
    assert device.events(EventKind.DELIVERY_REFUSED)[0].family == "animals"


def test_a_flood_is_cut_off_and_counted() -> None:
    clock = ManualClock()
    budget = EventBudget(clock)
    texts = [budget.spend(f"reason {number}") for number in range(100)]
    assert [text for text in texts if text] == [f"reason {number}" for number in range(16)]
    clock.advance(601)
    assert budget.spend("next") == "next (84 refusals before it were not told)"
    assert budget.spend("after") is None
