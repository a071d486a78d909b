"""What a broker elsewhere takes for true: attacks on device CAs and revocation lists."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from fleet_server.broker import acceptance
from fleet_server.broker.acceptance import Held
from fleet_server.broker.told import MAX_AUTHORITIES, Authority
from fleet_server.devices.certificates import DeviceCa
from fleet_server.errors import RefusedError
from signing_keys.authority_certificates import following_authority

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


class Ca:
    """A device CA with its key."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = following_authority("Skerry device CA", self.key, now=NOW)
        self.signs = DeviceCa(key=self.key, certificate=self.certificate)

    def told(
        self,
        number: int = 10,
        *serials: int,
        after: "Ca | None" = None,
        now: datetime = NOW,
        until: datetime = NOW + DAY,
    ) -> Authority:
        revoked = self.signs.revocation_list(serials, number=number, now=now, until=until)
        proof = pem(after.signs.link(self.certificate)) if after else ""
        return Authority(pem(self.certificate), pem(revoked), proof)


def pem(what: x509.Certificate | x509.CertificateRevocationList) -> str:
    return what.public_bytes(Encoding.PEM).decode()


@pytest.fixture
def first() -> Ca:
    return Ca()


@pytest.fixture
def held(first: Ca) -> Held:
    return Held.of([first.told(10, 7)])


def test_newer_lists_and_proven_followers_are_taken(first: Ca, held: Held) -> None:
    second, third = Ca(), Ca()
    told = [first.told(11, 7, 9), second.told(3, after=first), third.told(3, after=second)]
    after = acceptance.accepted(held, told, now=NOW)
    assert list(after.certificates) == [each.certificate for each in (first, second, third)]
    assert [acceptance.number_of(each) for each in after.lists] == [11, 3, 3]
    assert after.lists_pem.count(b"BEGIN X509 CRL") == 3
    assert acceptance.accepted(after, told, now=NOW) == after
    retired = acceptance.accepted(after, told[1:], now=NOW)
    assert list(retired.certificates) == [second.certificate, third.certificate]
    with pytest.raises(RefusedError, match="nothing proves"):
        acceptance.accepted(retired, [*told[1:], first.told(99)], now=NOW)  # its key may be stolen


def test_the_first_lists_of_all_are_taken(first: Ca) -> None:
    setup = Held((first.certificate,), ())
    assert len(acceptance.accepted(setup, [first.told()], now=NOW).lists) == 1


def _older(first: Ca) -> list[Authority]:
    return [first.told(9, 7)]


def _another_of_that_number(first: Ca) -> list[Authority]:
    return [first.told(10)]


def _no_authority(_first: Ca) -> list[Authority]:
    return []


def _flood(first: Ca) -> list[Authority]:
    return [first.told(11)] * (MAX_AUTHORITIES + 1)


def _foreign_list(first: Ca) -> list[Authority]:
    stranger = DeviceCa(key=Ca().key, certificate=first.certificate)
    made = stranger.revocation_list([], number=99, now=NOW, until=NOW + DAY)
    return [Authority(certificate_pem=pem(first.certificate), list_pem=pem(made))]


def _foreign_ca(first: Ca) -> list[Authority]:
    return [first.told(11, 7), Ca().told(99)]


def _link_made_up(first: Ca) -> list[Authority]:
    return [first.told(11, 7), Ca().told(99, after=Ca())]


def _link_of_another(first: Ca) -> list[Authority]:
    new, other = Ca(), Ca().told(1, after=first)
    mixed = Authority(new.told(1).certificate_pem, new.told(1).list_pem, other.link_pem)
    return [first.told(11, 7), mixed]


def _own_certificate_for_a_link(first: Ca) -> list[Authority]:
    """Who has a certificate of the CA shows it, and a CA of the same name and key."""
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = first.signs.issue_ingest(key.public_key(), now=NOW).pem
    mine = Ca()
    mine.key = key
    mine.certificate = following_authority("x", key, now=NOW)
    mine.signs = DeviceCa(key=key, certificate=mine.certificate)
    return [first.told(11, 7), Authority(mine.told().certificate_pem, mine.told().list_pem, leaf)]


def _expired(first: Ca) -> list[Authority]:
    return [first.told(11, 7, now=NOW - DAY, until=NOW)]


def _from_the_future(first: Ca) -> list[Authority]:
    return [first.told(11, 7, now=NOW + DAY / 2)]


def _rubbish(first: Ca) -> list[Authority]:
    return [Authority(pem(first.certificate), "-----BEGIN X509 CRL-----\nAAAA")]


def _cut_short(first: Ca) -> list[Authority]:
    whole = first.told(11, 7)
    return [Authority(whole.certificate_pem, whole.list_pem[:-80])]


@pytest.mark.parametrize(
    ("attack", "sentence"),
    [
        (_older, "has the number 9, and 10 is held"),
        (_another_of_that_number, "has the number 10, and 10 is held"),
        (_no_authority, "0 authorities"),
        (_flood, f"{MAX_AUTHORITIES + 1} authorities"),
        (_foreign_list, "not signed by"),
        (_foreign_ca, "nothing proves"),
        (_link_made_up, "nothing proves"),
        (_link_of_another, "nothing proves"),
        (_own_certificate_for_a_link, "nothing proves"),
        (_expired, "expired at"),
        (_from_the_future, "look at the clocks"),
        (_rubbish, "cannot be read"),
        (_cut_short, "cannot be read"),
    ],
)
def test_nothing_of_an_attack_is_taken(
    first: Ca, held: Held, attack: Callable[[Ca], list[Authority]], sentence: str
) -> None:
    with pytest.raises(RefusedError, match=sentence):
        acceptance.accepted(held, attack(first), now=NOW)
