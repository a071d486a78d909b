"""The device's certificate is renewed in time, and a crash anywhere loses no identity.

The server's side is the real services on a database of their own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from cryptography import x509

import fleet_server.devices.renewal as server_side
from edge_agent import identity, store
from edge_agent.control.renewal import CONFIRM_ROUTE, RENEW_ROUTE, Renewal, due
from edge_agent.control.server_client import (
    DeviceTokens,
    ServerRefusedError,
    ServerUnreachableError,
)
from edge_agent.identity_files import IdentityFiles
from fleet_protocol import messages
from fleet_protocol.messages import RenewRequest, RenewResponse
from fleet_server.database import Database
from fleet_server.devices.certificates import DeviceCa, RequestedKey, key_sha256
from fleet_server.devices.enrollment import Enrollment
from fleet_server.devices.registry import EnrolledDevices
from fleet_server.devices.service import Devices
from fleet_server.devices.tokens import ClaimVerifier
from fleet_server.errors import ConflictError, FleetError, NotAuthenticatedError
from tests.simulators.device_clock import ManualClock
from tests.simulators.migrated_file import MigratedFile
from tests.unit.fleet_server.authority import Fleet

DEVICE = "cam-01"
DAY_S = 86400
Result = TypeVar("Result")


class PowerCutError(Exception):
    """The device went off."""


class NoConnections:
    async def disconnect(self, device_id: str) -> None:
        pass


class Server:
    """The real services behind `CertificateServer`, called one request at a time."""

    def __init__(self, fleet: Fleet, database: Database, clock: ManualClock) -> None:
        online = fleet.data.online
        ca = DeviceCa.load(
            key_file=online / "device-ca.pem", certificate_file=online / "device-ca.crt"
        )
        self.ca = ca
        self._fleet, self._clock, self._runner = fleet, clock, asyncio.Runner()
        self._enrollment = Enrollment(
            database=database,
            verifier=ClaimVerifier.load(online / "claim.pub.pem"),
            ca=ca,
            clock=self._now,
        )
        self._renewal = server_side.Renewal(database=database, ca=ca, clock=self._now)
        self._devices = Devices(database=database, connections=[NoConnections()], clock=self._now)
        self._registry = EnrolledDevices(database, clock=self._now)
        self._database = database
        self.tokens: DeviceTokens | None = None
        self.unreachable = False
        self.loses_answers = False
        self.requests: list[str] = []

    def enroll(self, csr_pem: str, *, replaces: bool = False) -> str:
        token = self._fleet.claim_token(DEVICE, now=self._now(), replaces=replaces)
        return self._run(self._enrollment.enroll(token=token, csr_pem=csr_pem)).certificate_pem

    def lets_in(self, files: IdentityFiles) -> bool:
        sha256 = key_sha256(identity.load_key(files.key).public_key())
        return self._run(self._registry.refusal(DEVICE, sha256)) is None

    def post(self, path: str, body: bytes, *, tokens: DeviceTokens | None = None) -> bytes:
        self.requests.append(path)
        if self.unreachable:
            raise ServerUnreachableError("cannot reach it")
        signer = tokens or self.tokens
        assert signer is not None
        try:
            answer = {RENEW_ROUTE: self._renew, CONFIRM_ROUTE: self._confirm}[path](
                body, signer.token()
            )
        except FleetError as error:
            status = {ConflictError: 409, NotAuthenticatedError: 401}[type(error)]
            raise ServerRefusedError(str(error), status=status) from error
        if self.loses_answers:
            raise ServerUnreachableError("the answer was lost")
        return answer

    def close(self) -> None:
        self._run(self._database.close())
        self._runner.close()

    def _renew(self, body: bytes, token: str) -> bytes:
        device_id = self._run(self._devices.authenticate(token))
        csr_pem = messages.decode(body, RenewRequest).csr_pem
        pem = self._run(self._renewal.request(device_id, csr_pem=csr_pem))
        return messages.encode(RenewResponse(certificate_pem=pem))

    def _confirm(self, body: bytes, token: str) -> bytes:
        self._run(self._renewal.confirm(token, body=body))
        return b""

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)

    def _run(self, work: Awaitable[Result]) -> Result:
        async def run() -> Result:
            return await work

        return self._runner.run(run())


class Device:
    """A device that can be switched off and on again."""

    def __init__(self, folder: Path, server: Server, clock: ManualClock) -> None:
        self.files = IdentityFiles(folder / "identity")
        self.files.folder.mkdir()
        self._folder, self._server, self._clock = folder, server, clock
        self.enroll()
        self.start()

    def enroll(self, *, replaces: bool = False) -> None:
        pair = self.files.next_pair() if replaces else self.files.pair(0)
        request = identity.certificate_request(identity.ensure_key(pair.key), DEVICE)
        pair.certificate.write_text(self._server.enroll(request, replaces=replaces))
        if replaces:
            self.files.advance()

    def start(self) -> None:
        key = identity.load_key(self.files.key)
        tokens = DeviceTokens(device_id=DEVICE, key=key, clock=self._clock)
        self._server.tokens = tokens
        self.renewal = Renewal(
            files=self.files,
            lock=self._folder / "enroll.pid",
            device_id=DEVICE,
            server=self._server,
            clock=self._clock,
            tokens=tokens,
            renewed=lambda: None,
        )

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.files.certificate.read_bytes())


@pytest.fixture(scope="module")
def provisioned(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet.provision(tmp_path_factory.mktemp("authority") / "authority")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(now_ms=int(datetime.now(UTC).timestamp() * 1000))


@pytest.fixture
def server(
    provisioned: Fleet, tmp_path: Path, clock: ManualClock, migrated_file: MigratedFile
) -> Iterator[Server]:
    url = asyncio.run(migrated_file.copy_to(tmp_path / "fleet.db"))
    made = Server(provisioned, Database(url), clock)
    yield made
    made.close()


@pytest.fixture
def device(tmp_path: Path, server: Server, clock: ManualClock) -> Device:
    return Device(tmp_path, server, clock)


def test_nothing_happens_before_its_time(
    device: Device, server: Server, clock: ManualClock
) -> None:
    clock.advance(59 * DAY_S)
    assert device.renewal.look() is False
    assert server.requests == []


def test_a_renewed_device_goes_on_with_another_key(
    device: Device, server: Server, clock: ManualClock
) -> None:
    for generation in (1, 2):
        before = device.certificate
        assert device.renewal.look() is False
        clock.advance(70 * DAY_S)
        assert device.renewal.look() is True
        assert device.files.generation == generation
        assert device.certificate.public_key() != before.public_key()
        assert server.lets_in(device.files)
        assert not device.files.pair(generation - 1).key.exists()
    assert server.requests == [RENEW_ROUTE, CONFIRM_ROUTE] * 2


def test_another_issuer_makes_it_renew_early_and_once(device: Device, server: Server) -> None:
    device.renewal.issued_by(server.ca.key_id)
    assert device.renewal.look() is False
    assert server.requests == []
    device.renewal.issued_by("0" * 40)
    server.unreachable = True
    with pytest.raises(ServerUnreachableError):
        device.renewal.look()
    server.unreachable = False
    assert device.renewal.look() is True
    assert device.renewal.look() is False  # the server's CA is still not that one: no loop
    assert server.requests == [RENEW_ROUTE, RENEW_ROUTE, CONFIRM_ROUTE]


@pytest.mark.parametrize("failure", ["unreachable", "loses_answers"])
def test_without_an_answer_the_old_certificate_holds_and_it_tries_again(
    device: Device, server: Server, clock: ManualClock, failure: str
) -> None:
    clock.advance(70 * DAY_S)
    setattr(server, failure, True)
    for _ in range(2):
        with pytest.raises(ServerUnreachableError):
            device.renewal.look()
    assert device.files.generation == 0
    assert server.lets_in(device.files)
    setattr(server, failure, False)
    assert device.renewal.look() is True
    assert server.lets_in(device.files)


@pytest.mark.parametrize("when", range(9))
def test_a_power_cut_anywhere(
    device: Device, server: Server, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    """Cut before each durable write and each request, and after the server did what was asked."""
    clock.advance(70 * DAY_S)
    steps = 0

    def cut(real: Callable[..., Result], *, after: bool = False) -> Callable[..., Result]:
        def step(*arguments: object, **options: object) -> Result:
            nonlocal steps
            result = real(*arguments, **options) if after else None
            steps += 1
            if steps == when + 1:
                raise PowerCutError
            return real(*arguments, **options) if result is None else result

        return step

    with monkeypatch.context() as patched:
        for name in ("write_file", "remove_file"):
            patched.setattr(store, name, cut(getattr(store, name)))
        patched.setattr(server, "post", cut(server.post, after=True))
        try:
            device.renewal.look()
        except PowerCutError:
            assert device.files.generation == int(when >= 5)
        else:
            assert when > 7, "every step was cut"
    device.start()
    device.renewal.look()
    assert device.files.generation == 1
    assert server.lets_in(device.files)
    assert device.certificate.public_key() == identity.load_key(device.files.key).public_key()


def test_an_expired_device_asks_for_nothing_until_it_is_enrolled_again(
    device: Device, server: Server, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    device.renewal.look()
    clock.advance(91 * DAY_S)
    for _ in range(2):
        assert device.renewal.look() is False
    assert [record.message for record in caplog.records] == ["certificate_expired"]
    assert "--replace" in str(caplog.records[0].__dict__["remedy"])
    assert server.requests == []
    device.enroll(replaces=True)
    assert device.renewal.look() is True, "the process takes the new pair over"
    assert server.lets_in(device.files)


def test_a_certificate_that_the_server_forgot_is_asked_for_anew(
    device: Device, server: Server, clock: ManualClock
) -> None:
    clock.advance(70 * DAY_S)
    pair = device.files.next_pair()
    key = identity.ensure_key(pair.key)
    forgotten = server.ca.issue(
        device_id=DEVICE, key=RequestedKey(key.public_key()), now=datetime.now(UTC)
    )
    pair.certificate.write_text(forgotten.pem)
    with pytest.raises(ServerRefusedError, match="renew again"):
        device.renewal.look()
    assert server.lets_in(device.files)
    assert device.renewal.look() is True
    assert server.lets_in(device.files)


def test_devices_that_were_enrolled_together_do_not_renew_together(device: Device) -> None:
    certificate = device.certificate
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    when = due(certificate)
    assert begin + (end - begin) * 2 / 3 <= when <= end - (end - begin) / 5
    assert due(certificate) == when
    device.enroll(replaces=True)
    assert abs(due(device.certificate) - when) > timedelta(seconds=1)
