"""What became of one rollout of a campaign: what the soak test asserts and the benchmark prints."""

from collections.abc import Mapping, Sequence

import msgspec


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one rollout.

    Attributes:
        runs: how many devices run the new release and the old one, by their own files.
        stages: the devices of each stage by state.
        touched: devices whose runtime was ever told to load the release.
        elsewhere: those of them that are not in the first stage.
        reason: why it ended, as the API says it.
        stopped_s: from the first device that was told to the stop; None without one.
        took_s: from its creation to its end.
        in_flight: the most devices that were changing at once, by the history.
        on_trial: the most that were, by the devices' own logs; None where some lay silent.
        budget: the most that may.
        kills: of the server meanwhile.
    """

    scenario: str
    status: str
    runs: Mapping[str, int]
    stages: Sequence[Mapping[str, int]]
    first_stage: int
    touched: int
    elsewhere: int
    reason: str
    stopped_s: float | None
    took_s: float
    in_flight: int
    on_trial: int | None
    budget: int
    decisions: int
    kills: Mapping[str, int]

    @property
    def name(self) -> str:
        """The scenario, and how the server died meanwhile."""
        killed = f", server killed {' and '.join(self.kills)}" if self.kills else ""
        return f"{self.scenario}{killed}"

    @property
    def end_state(self) -> object:
        """What must be the same whether or not the server died meanwhile."""
        return self.status, self.runs, self.stages
