"""A device trusts a fleet CA for the signature of the one before, not for a server's word."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from edge_agent import fleet_authorities
from fleet_protocol.messages import MAX_FLEET_CAS, FleetCa
from provisioning import certificates
from signing_keys.authority_certificates import authority, following_authority, link

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Ca:
    """An authority with its key."""

    def __init__(self, name: str = "Skerry fleet CA") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = following_authority(name, self.key, now=NOW)

    @property
    def pem(self) -> str:
        return pem(self.certificate)

    def link(self, new: "Ca") -> x509.Certificate:
        return link(new.certificate, issuer=self.certificate, issuer_key=self.key)

    def follower(self, new: "Ca") -> FleetCa:
        return FleetCa(certificate_pem=new.pem, link_pem=pem(self.link(new)))

    def server_certificate(self, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        return certificates.server_certificate(
            certificates.server_names(["localhost"]),
            key.public_key(),
            issuer=self.certificate,
            issuer_key=self.key,
            now=NOW,
        )


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def test_it_is_followed_link_by_link() -> None:
    first, second, third = Ca(), Ca(), Ca()
    chain = [first.follower(second), second.follower(third)]
    found = fleet_authorities.trusted(first.pem, chain)
    assert list(found.certificates) == [each.certificate for each in (first, second, third)]
    assert list(found.followers) == chain
    again = fleet_authorities.trusted(first.pem, [*chain, *chain])
    assert list(again.followers) == chain
    assert list(fleet_authorities.trusted(first.pem, chain[1:]).followers) == []


def test_a_follower_that_the_claim_names_needs_no_proof_any_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second, third = Ca(), Ca(), Ca()
    offered = [first.follower(second), second.follower(third)]
    found = fleet_authorities.trusted(second.pem, offered)
    assert len(found.certificates) == 2
    assert found.followers == offered[1:]
    assert "fleet_ca_refused" not in caplog.text


def test_a_new_claim_ends_what_only_the_old_one_led_to(tmp_path: Path) -> None:
    first, second, other = Ca(), Ca(), Ca()
    path = tmp_path / "fleet-cas.json"
    fleet_authorities.save(path, [first.follower(second)])
    kept = fleet_authorities.load(path)
    assert len(fleet_authorities.trusted(first.pem, kept).certificates) == 2
    assert list(fleet_authorities.trusted(other.pem, kept).certificates) == [other.certificate]
    path.write_bytes(b"[{")
    assert fleet_authorities.load(path) == []


def made_up(_first: Ca, _server: ec.EllipticCurvePrivateKey) -> FleetCa:
    return Ca().follower(Ca())


def no_link(_first: Ca, _server: ec.EllipticCurvePrivateKey) -> FleetCa:
    new = Ca()
    return FleetCa(certificate_pem=new.pem, link_pem=new.pem)


def link_of_another(first: Ca, _server: ec.EllipticCurvePrivateKey) -> FleetCa:
    return FleetCa(certificate_pem=Ca().pem, link_pem=pem(first.link(Ca())))


def own_certificate(first: Ca, server: ec.EllipticCurvePrivateKey) -> FleetCa:
    """The server's certificate, by the fleet CA, beside a CA of that name and the server's key."""
    made = authority("Skerry fleet server", server, now=NOW)
    shown = first.server_certificate(server)
    assert (made.subject, made.public_key()) == (shown.subject, shown.public_key())
    return FleetCa(certificate_pem=pem(made), link_pem=pem(shown))


def link_by_own_certificate(first: Ca, server: ec.EllipticCurvePrivateKey) -> FleetCa:
    new = Ca()
    shown = first.server_certificate(server)
    by_own = link(new.certificate, issuer=shown, issuer_key=server)
    return FleetCa(certificate_pem=new.pem, link_pem=pem(by_own))


def no_authority(first: Ca, _server: ec.EllipticCurvePrivateKey) -> FleetCa:
    shown = pem(first.server_certificate(ec.generate_private_key(ec.SECP256R1())))
    return FleetCa(certificate_pem=shown, link_pem=shown)


def rubbish(_first: Ca, _server: ec.EllipticCurvePrivateKey) -> FleetCa:
    return FleetCa(certificate_pem="no certificate", link_pem="")


@pytest.mark.parametrize(
    "attack",
    [
        *(made_up, no_link, link_of_another, own_certificate),
        *(link_by_own_certificate, no_authority, rubbish),
    ],
)
def test_an_owned_server_cannot_make_a_device_trust_its_ca(
    attack: Callable[[Ca, ec.EllipticCurvePrivateKey], FleetCa],
) -> None:
    first, server = Ca(), ec.generate_private_key(ec.SECP256R1())
    found = fleet_authorities.trusted(first.pem, [attack(first, server)])
    assert list(found.certificates) == [first.certificate]
    assert list(found.followers) == []


def test_a_flood_is_not_read() -> None:
    first, new = Ca(), Ca()
    flood = [made_up(first, first.key)] * MAX_FLEET_CAS
    assert not fleet_authorities.trusted(first.pem, [*flood, first.follower(new)]).followers
