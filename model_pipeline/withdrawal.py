"""What withdrawing a release changes in its family's signed list, and on devices. Pure."""

from dataclasses import dataclass

from fleet_protocol import withdrawals
from fleet_protocol.errors import ProtocolError
from fleet_protocol.withdrawals import Withdrawals
from model_pipeline.errors import PipelineError


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What somebody wants to withdraw.

    Attributes:
        reason: for the people who operate devices.
        floor: the security floor from now on; None leaves it.
    """

    family: str
    version: str
    reason: str
    floor: int | None = None

    @property
    def name(self) -> str:
        """The release, for a sentence."""
        return f"{self.family} {self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """What an order changes.

    Attributes:
        listed: the release is in the list until now.
        before: what the list says now.
        after: what it will say.
    """

    order: Order
    listed: bool
    before: Withdrawals
    after: Withdrawals

    @property
    def changes(self) -> bool:
        """Whether there is anything to sign."""
        return self.listed or self.after != self.before

    @property
    def effects(self) -> list[str]:
        """What will happen, in sentences for the person who is about to sign."""
        name = self.order.name
        fate = (
            f"No device installs {name} any more. A device that runs it goes on serving it and "
            "reports that it is withdrawn, until another release is assigned to it."
        )
        said = [fate, f"{name} can never be published again; a repaired model needs a new version."]
        floor = self.after.security_floor
        if floor > self.before.security_floor:
            said.append(
                f"Devices refuse every release of {self.order.family} whose security counter is "
                f"below {floor} (until now: {self.before.security_floor}), listed or not, also as "
                "a way back. That can never be lowered, and the next release needs a counter of "
                f"{floor} or more."
            )
        return said


def planned(order: Order, *, listed: bool, said: Withdrawals) -> Withdrawal:
    """Return what a withdrawal changes.

    Args:
        order: what is wanted.
        listed: the release is in the family's list.
        said: what the list says now.

    Raises:
        PipelineError: there never was such a release, the floor would fall, or what would be
            signed is not well formed.
    """
    if not listed and order.version not in said.yanked:
        raise PipelineError(
            f"the server's repository has no {order.name}; `skerry fleet releases` lists what "
            "there is"
        )
    if not order.reason.strip():
        raise PipelineError("give a --reason: operators read it when their devices report it")
    floor = said.security_floor if order.floor is None else order.floor
    if floor < said.security_floor:
        raise PipelineError(
            f"the security floor of {order.family} is {said.security_floor} and only rises; "
            f"{floor} is lower"
        )
    yanked = {order.version: order.reason.strip(), **said.yanked}
    after = Withdrawals(yanked=yanked, security_floor=floor)
    try:
        withdrawals.of(withdrawals.extra_fields(after))
    except ProtocolError as error:
        raise PipelineError(f"this withdrawal cannot be signed: {error}") from error
    return Withdrawal(order=order, listed=listed, before=said, after=after)
