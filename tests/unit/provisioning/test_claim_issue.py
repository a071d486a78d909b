"""Claims: what the server will read in them."""

from datetime import timedelta

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from fleet_protocol import claims
from fleet_protocol.claims import ClaimBundle
from fleet_protocol.errors import ProtocolError
from provisioning.claim_issue import ClaimIssuer
from provisioning.errors import ProvisioningError
from provisioning.layout import Authority
from tests.unit.provisioning.conftest import NOW, PASSPHRASE


@pytest.fixture(scope="module")
def issuer(authority: Authority) -> ClaimIssuer:
    return ClaimIssuer(authority, passphrase=PASSPHRASE)


def token_claims(authority: Authority, bundle: ClaimBundle) -> dict[str, object]:
    key = ECKey.import_key((authority.online / "claim.pub.pem").read_bytes())
    return jwt.decode(bundle.token, key, algorithms=["ES256"]).claims


def test_the_server_can_verify_the_token(authority: Authority, issuer: ClaimIssuer) -> None:
    bundle = claims.decode(issuer.issue("cam-01", now=NOW, lifetime=timedelta(hours=12)))
    issued_at = int(NOW.timestamp())
    found = token_claims(authority, bundle)
    assert len(str(found.pop("jti"))) == 32
    assert found == {
        "iss": claims.TOKEN_ISSUER,
        "sub": "cam-01",
        "iat": issued_at,
        "exp": issued_at + 12 * 3600,
    }
    assert bundle.expires_at_ms == (issued_at + 12 * 3600) * 1000


def test_the_claim_carries_the_roots_of_trust(authority: Authority, issuer: ClaimIssuer) -> None:
    bundle = claims.decode(issuer.issue("cam-01", now=NOW, floors={"fashion_mnist": 3}))
    assert bundle.device_id == "cam-01"
    assert bundle.release_root == authority.release_root.read_text()
    assert bundle.director_root == authority.director_root.read_text()
    assert bundle.fleet_ca_pem == authority.fleet_ca.read_text()
    assert bundle.floors == {"fashion_mnist": 3}


def test_each_token_has_a_number_of_its_own(authority: Authority, issuer: ClaimIssuer) -> None:
    bundles = [claims.decode(issuer.issue("cam-01", now=NOW)) for _ in range(5)]
    assert len({token_claims(authority, bundle)["jti"] for bundle in bundles}) == 5


@pytest.mark.parametrize("device_id", ["", "Cam", "cam_01", "-cam", "a" * 64, "a/b", "_ingest"])
def test_a_device_must_have_a_proper_name(issuer: ClaimIssuer, device_id: str) -> None:
    with pytest.raises(ProtocolError, match="device id"):
        issuer.issue(device_id, now=NOW)


@pytest.mark.parametrize("floors", [{"A": 1}, {"fashion_mnist": -1}, {"fashion_mnist": 2**31}])
def test_floors_are_checked(issuer: ClaimIssuer, floors: dict[str, int]) -> None:
    with pytest.raises(ProtocolError):
        issuer.issue("cam-01", now=NOW, floors=floors)


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(days=-1), timedelta(days=366)])
def test_lifetimes_are_bounded(issuer: ClaimIssuer, lifetime: timedelta) -> None:
    with pytest.raises(ProvisioningError, match="365 days"):
        issuer.issue("cam-01", now=NOW, lifetime=lifetime)


def test_a_wrong_passphrase(authority: Authority) -> None:
    with pytest.raises(ProvisioningError, match="the passphrase is wrong"):
        ClaimIssuer(authority, passphrase=b"something else")
