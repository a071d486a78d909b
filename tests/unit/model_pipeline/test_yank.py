"""Withdrawing a release over real HTTPS from a server with a real repository."""

from collections.abc import Callable

import pytest

from fleet_protocol import withdrawals
from fleet_protocol.withdrawals import Withdrawals
from model_pipeline.errors import PipelineError
from model_pipeline.publish import Outcome
from model_pipeline.withdrawal import Order, Withdrawal, planned
from tests.unit.model_pipeline.test_publish import Rig, nobody, rig

__all__ = ["rig"]


def sure(_plan: Withdrawal) -> bool:
    return True


def yank(
    rig: Rig,
    version: str = "1.0.0",
    *,
    floor: int | None = None,
    confirm: Callable[[Withdrawal], bool] = sure,
) -> Withdrawal:
    return rig.publisher().yank(
        Order(family="letters", version=version, reason="mislabelled", floor=floor),
        confirm=confirm,
        signers=lambda: [rig.signer],
    )


def said(rig: Rig) -> Withdrawals:
    return withdrawals.of(rig.server.role("letters").unrecognized_fields)


@pytest.fixture
def published(rig: Rig) -> Rig:
    """Two releases that stand in the list of version 3."""
    rig.publish()
    rig.publish(rig.other_bundle("1.1.0"))
    return rig


def test_a_withdrawn_release_leaves_the_list_and_is_named(published: Rig) -> None:
    heard: list[str] = []

    def confirm(plan: Withdrawal) -> bool:
        heard.extend(plan.effects)
        return True

    assert yank(published, floor=2, confirm=confirm).changes
    role = published.server.role("letters")
    assert role.version == 4
    assert {path.split("/")[2] for path in role.targets} == {"1.1.0"}
    assert said(published) == Withdrawals(yanked={"1.0.0": "mislabelled"}, security_floor=2)
    assert "goes on serving it" in heard[0]
    assert "below 2 (until now: 0)" in heard[-1]
    assert not yank(published, floor=2).changes
    assert published.server.role("letters").version == 4


def test_a_later_publication_keeps_what_was_withdrawn(published: Rig) -> None:
    yank(published)
    assert published.publish(published.other_bundle("1.2.0")) is Outcome.PUBLISHED
    assert said(published).yanked == {"1.0.0": "mislabelled"}


def test_a_withdrawn_release_is_not_published_again(published: Rig) -> None:
    yank(published)
    with pytest.raises(PipelineError, match=r"1\.0\.0 was withdrawn \(mislabelled\)"):
        published.publisher().publish(published.bundle, nobody)


def test_nothing_below_the_floor_is_published(published: Rig) -> None:
    yank(published, floor=2)
    with pytest.raises(PipelineError, match="--security-counter 2"):
        published.publisher().publish(published.other_bundle("1.2.0"), nobody)


def test_nobody_confirms(published: Rig) -> None:
    with pytest.raises(PipelineError, match="nothing was signed"):
        yank(published, confirm=lambda _plan: False)
    assert published.server.role("letters").version == 3


def test_a_server_that_takes_a_withdrawal_and_does_not_publish_it(published: Rig) -> None:
    published.server.faults.take_without_publishing = True
    with pytest.raises(PipelineError, match="does not show it"):
        yank(published)


@pytest.mark.parametrize(
    ("version", "listed", "reason", "floor", "sentence"),
    [
        ("9.9.9", False, "why", None, "has no letters 9.9.9"),
        ("1.1.0", True, " ", None, "--reason"),
        ("1.1.0", True, "x" * 301, None, "cannot be signed"),
        ("1.1.0", True, "why", 2, "only rises; 2 is lower"),
    ],
)
def test_what_is_no_withdrawal(
    version: str, *, listed: bool, reason: str, floor: int | None, sentence: str
) -> None:
    before = Withdrawals(yanked={"1.0.0": "mislabelled"}, security_floor=3)
    order = Order(family="letters", version=version, reason=reason, floor=floor)
    with pytest.raises(PipelineError, match=sentence):
        planned(order, listed=listed, said=before)
