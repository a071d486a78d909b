"""What a stored password costs, and that one which nobody set costs the same."""

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from fleet_server.accounts.passwords import Passwords

PASSWORD = "correct horse battery"


async def test_a_password_is_stored_as_rfc_9106_recommends() -> None:
    passwords = Passwords()
    stored = await passwords.hashed(PASSWORD)
    assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert await passwords.fits(stored, PASSWORD)
    assert not await passwords.fits(stored, PASSWORD + "!")


async def test_who_does_not_exist_costs_what_everybody_costs() -> None:
    passwords = Passwords()
    stored, nobodys = await passwords.hashed(PASSWORD), passwords._nobody
    assert list(map(len, nobodys.split("$"))) == list(map(len, stored.split("$")))
    assert nobodys.split("$")[:4] == stored.split("$")[:4]
    with pytest.raises(VerifyMismatchError):  # it was computed, and is not malformed
        PasswordHasher().verify(nobodys, PASSWORD)
    assert not await passwords.fits(None, PASSWORD)
