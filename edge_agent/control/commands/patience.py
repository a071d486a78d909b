"""How long commands wait for the runtime, and how often they look at it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Times in seconds.

    Attributes:
        back_within_s: a restarted runtime has to serve again what it served.
        restart_look_s: between two looks at a runtime that restarts.
        steady_s: this process has to live under settings on trial.
        serves_within_s: under settings on trial the runtime has to serve what it served.
        trial_look_s: between two looks at a runtime under settings on trial.
    """

    back_within_s: float = 120.0
    restart_look_s: float = 0.2
    steady_s: float = 10.0
    serves_within_s: float = 60.0
    trial_look_s: float = 0.5
