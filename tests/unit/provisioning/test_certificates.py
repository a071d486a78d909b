"""What TLS stacks make of the certificates."""

import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from provisioning import certificates
from provisioning.errors import ProvisioningError
from provisioning.layout import Authority
from tests.unit.provisioning.conftest import NOW


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> ssl.SSLObject:
    """Run a handshake in memory; return the server's side."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_side = server.wrap_bio(to_server, to_client, server_side=True)
    client_side = client.wrap_bio(to_client, to_server, server_hostname=name)
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for side in (client_side, server_side):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
        if len(done) == 2:
            return server_side
    raise AssertionError("the handshake does not end")


def contexts(authority: Authority, client_ca: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    online = authority.online
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(online / "tls.crt", online / "tls.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(client_ca)
    client = ssl.create_default_context(cafile=str(authority.fleet_ca))
    client.load_cert_chain(online / "ingest.crt", online / "ingest.pem")
    for context in (server, client):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    return server, client


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_a_strict_client_and_a_strict_server_accept_each_other(
    authority: Authority, name: str
) -> None:
    server, client = contexts(authority, authority.online / "device-ca.crt")
    side = handshake(server, client, name)
    peer = side.getpeercert() or {}
    assert peer["subjectAltName"] == (("URI", "urn:skerry:service:ingest"),)


@pytest.mark.parametrize("name", ["otherhost", "127.0.0.2"])
def test_another_name_is_refused(authority: Authority, name: str) -> None:
    server, client = contexts(authority, authority.online / "device-ca.crt")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client, name)


def test_the_authorities_do_not_stand_in_for_each_other(authority: Authority) -> None:
    server, client = contexts(authority, authority.fleet_ca)
    with pytest.raises(ssl.SSLError):
        handshake(server, client, "localhost")


@pytest.mark.parametrize(
    ("file", "common_name", "lifetime"),
    [
        ("fleet-ca.crt", "Skerry fleet CA", timedelta(days=3652)),
        ("device-ca.crt", "Skerry device CA", timedelta(days=3652)),
        ("tls.crt", "Skerry fleet server", timedelta(days=397)),
        ("ingest.crt", "_ingest", timedelta(days=397)),
    ],
)
def test_names_and_lifetimes(
    authority: Authority, file: str, common_name: str, lifetime: timedelta
) -> None:
    certificate = x509.load_pem_x509_certificate((authority.online / file).read_bytes())
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == common_name
    assert certificate.not_valid_after_utc == NOW + lifetime
    assert certificate.not_valid_before_utc < NOW


@pytest.mark.parametrize(
    ("typed", "kind"),
    [
        ("fleet.example.org", x509.DNSName),
        ("Fleet.Example.ORG", x509.DNSName),
        ("localhost", x509.DNSName),
        ("192.0.2.7", x509.IPAddress),
        ("2001:db8::7", x509.IPAddress),
    ],
)
def test_server_names(typed: str, kind: type[x509.GeneralName]) -> None:
    (name,) = certificates.server_names([typed, typed])
    assert isinstance(name, kind)


@pytest.mark.parametrize(
    "typed",
    ["", "https://fleet.example.org", "fleet.example.org:8443", "a b", "-a", "a..b", "300.1.1.1",
     "*.example.org", "x" * 64, "a\n", "fleet.example.org/"],
)  # fmt: skip
def test_what_is_no_server_name(typed: str) -> None:
    with pytest.raises(ProvisioningError, match="neither a DNS name nor an IP address"):
        certificates.server_names([typed])


def test_no_server_name() -> None:
    with pytest.raises(ProvisioningError, match="--server-name"):
        certificates.server_names([])
