"""Stages as the command line takes them: ``1,10%:30m,100%``."""

import re
from datetime import timedelta

from fleet_server.duration import duration
from fleet_server.errors import RefusedError


def stages(text: str) -> list[dict[str, float]]:
    """Return the stages of a plan, as the API takes them.

    Args:
        text: the stages in order, separated by commas: how many devices (``5``) or which share of
            them (``10%``) has the release at its end, and after a colon how long it is watched
            then (``10%:30m``).

    Raises:
        RefusedError: a stage is written otherwise. Whether they make sense together is the
            server's question.
    """
    return [_stage(part.strip()) for part in text.split(",")]


def _stage(text: str) -> dict[str, float]:
    match = re.fullmatch(r"([0-9]{1,7}(?:\.[0-9]{1,4})?%|[0-9]{1,7})(?::(.+))?", text)
    if match is None:
        raise RefusedError(
            f"--stages: {text[:40]!r} is no stage: use a number of devices or a share, and how "
            "long it is watched if you like, such as 5 or 10% or 10%:30m"
        )
    reach, soak = match.groups()
    stage: dict[str, float] = (
        {"percent": float(reach[:-1])} if reach.endswith("%") else {"count": int(reach)}
    )
    if soak:
        stage["soak_s"] = duration(soak, option="--stages: soak") / timedelta(seconds=1)
    return stage
