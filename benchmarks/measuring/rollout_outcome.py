"""What became of one rollout of a campaign: what the soak test asserts and the benchmark prints."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec


class Deaths(StrEnum):
    """When the server is killed."""

    NEVER = ""
    AT_EACH_WRITE = "at each write"
    AT_RANDOM = "at random"


class Scenario(StrEnum):
    """What a fleet goes through, in this order; the name by which a run is asked for it."""

    GOOD = "good"
    FAILING = "failing"
    SLOW = "slow"
    SILENT = "silent"
    FAILING_KILLED = "failing-killed"
    GOOD_KILLED = "good-killed"
    GOOD_KILLED_AT_RANDOM = "good-killed-at-random"

    @property
    def deaths(self) -> Deaths:
        """When the server is killed meanwhile."""
        if self is Scenario.GOOD_KILLED_AT_RANDOM:
            return Deaths.AT_RANDOM
        return Deaths.AT_EACH_WRITE if self.value.endswith("-killed") else Deaths.NEVER

    @property
    def release(self) -> "Scenario":
        """The scenario with the same kind of release and a server that lives."""
        return Scenario(self.value.partition("-")[0])


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
        ended_s: when, in seconds since 1970.
    """

    scenario: Scenario
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
    ended_s: float

    @property
    def name(self) -> str:
        """The scenario for people, and how the server died meanwhile."""
        deaths = self.scenario.deaths
        return f"{_WORDS[self.scenario.release]}{f', server killed {deaths}' if deaths else ''}"

    @property
    def end_state(self) -> object:
        """What must be the same whether or not the server died meanwhile."""
        return self.status, self.runs, self.stages


_WORDS = {
    Scenario.GOOD: "good",
    Scenario.FAILING: "fails on 30 %",
    Scenario.SLOW: "20 % slower",
    Scenario.SILENT: "silences 40 %",
}
