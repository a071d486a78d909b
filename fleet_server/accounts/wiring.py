"""Puts the parts of accounts together, for the server and for its commands."""

from fleet_server.accounts.login_watch import LoginWatch
from fleet_server.accounts.logins import Logins
from fleet_server.accounts.passwords import Passwords
from fleet_server.accounts.service import Accounts
from fleet_server.accounts.throttle import LoginThrottle
from fleet_server.accounts.users import Users
from fleet_server.clock import Clock
from fleet_server.database import Database


def wired(database: Database, clock: Clock) -> tuple[Accounts, Users, Logins]:
    """Return the services of accounts on one database."""
    passwords = Passwords()
    accounts = Accounts(database=database, clock=clock)
    users = Users(database=database, passwords=passwords, clock=clock)
    logins = Logins(
        database=database,
        accounts=accounts,
        users=users,
        passwords=passwords,
        throttle=LoginThrottle(database=database, clock=clock),
        watch=LoginWatch(),
        clock=clock,
    )
    return accounts, users, logins
