"""Tells whoever starts the server for the first time how to become its admin."""

import sys

from fleet_server.accounts.logins import CLAIM_LIFETIME, Logins


async def greet(logins: Logins, *, port: int) -> None:
    """Print a one-time admin claim while there is no user; the log never gets it.

    Raises:
        UnavailableError: the database failed.
    """
    if not await logins.has_users():
        sys.stdout.write(text(await logins.make_claim(), port=port))
        sys.stdout.flush()


def text(claim: str, *, port: int) -> str:
    """Return what is said about a new claim."""
    minutes = int(CLAIM_LIFETIME.total_seconds()) // 60
    return (
        f"Nobody can log in yet. For {minutes} minutes, once, this claim makes an admin:\n"
        f"  {claim}\n"
        "Use it: skerry fleet claim-admin --name NAME "
        f"--server https://THIS-HOST:{port} --ca fleet-ca.crt\n"
    )
