"""Notices how logins end: a warning in the log for each that is refused, counts for the metrics.

Nothing of it is in the audit trail: a refused login changes nothing, the trail is kept for ever,
and strangers must not be able to fill it.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

from fleet_protocol.errors import SkerryError
from fleet_server.errors import (
    ConflictError,
    ForeignBrowserError,
    NotAuthenticatedError,
    NotPermittedError,
    RefusedError,
    ThrottledError,
)

logger = logging.getLogger(__name__)

_MAX_TEXT = 300


class Way(StrEnum):
    """How somebody wants in."""

    PASSWORD = "password"  # noqa: S105 (the name of a way)
    CLAIM = "claim"
    OPENID = "openid"


class Outcome(StrEnum):
    """What became of it."""

    GRANTED = "granted"
    WRONG = "wrong"
    """A password, a claim or an answer of the provider that does not hold."""
    FOREIGN_BROWSER = "foreign_browser"
    NOT_PERMITTED = "not_permitted"
    """The provider knows the person, and no role is meant."""
    THROTTLED = "throttled"
    REFUSED = "refused"
    """A name or a password that cannot be that of a new account."""
    FAILED = "failed"
    """The database or the provider."""


_OUTCOMES: Mapping[type[SkerryError], Outcome] = {
    NotAuthenticatedError: Outcome.WRONG,
    ForeignBrowserError: Outcome.FOREIGN_BROWSER,
    NotPermittedError: Outcome.NOT_PERMITTED,
    ThrottledError: Outcome.THROTTLED,
    RefusedError: Outcome.REFUSED,
    ConflictError: Outcome.REFUSED,
}


@dataclass(slots=True)
class Attempt:
    """A login that is under way.

    Attributes:
        account: who it is said to be, as far as that is known.
    """

    account: str


class LoginWatch:
    """The logins of one process."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter(dict.fromkeys(product(Way, Outcome), 0))
        """How many logins ended how, by `Way` and `Outcome`; those that never did have 0."""

    @contextmanager
    def attempt(self, way: Way, *, address: str, account: str = "") -> Iterator[Attempt]:
        """Notice how the login in this block ends.

        Args:
            way: how somebody wants in.
            address: of the connection; a proxy's, if there is one between.
            account: who it is said to be.
        """
        with self.beginning(way, address=address, account=account) as attempt:
            yield attempt
            self.counts[way, Outcome.GRANTED] += 1

    @contextmanager
    def beginning(self, way: Way, *, address: str, account: str = "") -> Iterator[Attempt]:
        """Notice if a login is refused in this block, which is not its end; see `attempt`."""
        attempt = Attempt(account)
        try:
            yield attempt
        except SkerryError as error:
            outcome = _OUTCOMES.get(type(error), Outcome.FAILED)
            self.counts[way, outcome] += 1
            logger.warning(
                "login_refused",
                extra={
                    "way": way.value,
                    "outcome": outcome.value,
                    "account": attempt.account[:_MAX_TEXT],
                    "address": address[:_MAX_TEXT],
                    "reason": str(error)[:_MAX_TEXT],
                },
            )
            raise
