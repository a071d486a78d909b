"""What the terms of delivery keep a device from doing now, as sentences for the operator. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime

from fleet_protocol.delivery import Terms
from fleet_protocol.update_states import UpdateState

_BEFORE_THE_SWITCH = frozenset({UpdateState.VERIFIED, UpdateState.TRIAL})


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a release may not be fetched or started yet; empty where nothing is in the way."""

    download: str = ""
    activation: str = ""


AT_ONCE = Waiting()


def held_back(state: UpdateState, waits: Waiting) -> str:
    """Return what keeps an update in a state from going on; empty for nothing."""
    if state is UpdateState.DOWNLOADING:
        return waits.download
    return waits.activation if state in _BEFORE_THE_SWITCH else ""


def waiting(terms: Terms, now: datetime) -> Waiting:
    """Return what has to wait at a moment of the trusted clock.

    The sentences name the moment waited for and not the time left, so they change only with it.
    """
    window = _window(terms, now)
    return Waiting(
        download=_not_before("the download", terms.download_not_before_ms, now)
        or (window and f"the download waits for {window}" if terms.download_in_window else ""),
        activation=_not_before("the activation", terms.activate_not_before_ms, now)
        or (window and f"the activation waits for {window}"),
    )


def _not_before(what: str, moment_ms: int, now: datetime) -> str:
    if now.timestamp() * 1000 >= moment_ms:
        return ""
    return f"{what} is set for {_text(datetime.fromtimestamp(moment_ms / 1000, UTC))}"


def _window(terms: Terms, now: datetime) -> str:
    if terms.window is None or terms.window.is_open(now):
        return ""
    return f"the maintenance window, which opens on {_text(terms.window.opens(now))}"


def _text(moment: datetime) -> str:
    return f"{moment:%a %Y-%m-%d %H:%M} UTC"
