"""What `skerry server ca` does: shows the CAs, makes and retires device CAs, adopts fleet CAs.

The files and the database are the truth, so all of it works beside a running server, which follows
within seconds (`fleet_server.trust.succession`), and without one.
"""

import fcntl
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fleet_protocol.counting import counted
from fleet_server.audit import trail
from fleet_server.broker import publication
from fleet_server.clock import Clock
from fleet_server.data_dir import DataDir
from fleet_server.database import Database
from fleet_server.devices import authorities
from fleet_server.devices.authorities import CaFiles, DeviceCas
from fleet_server.devices.certificates import DeviceCa, issuer_key_id
from fleet_server.errors import RefusedError, SetupError
from fleet_server.local_database import opened
from fleet_server.releases import durable_files
from fleet_server.trust import device_authorities, fleet_cas
from fleet_server.trust.fleet_cas import FleetCas
from signing_keys.authority_certificates import following_authority


class CaStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One authority.

    Attributes:
        kind: ``device CA`` or ``fleet CA``.
        state: ``issues``, ``waits`` for the broker, ``known`` (a fleet CA that devices learn), or
            ``former``.
        devices: of a device CA, how many hold certificates of it; of a fleet CA that follows
            another one, how many trust it not yet; None where there is nothing to count.
    """

    kind: str
    key: str
    state: str
    expires: datetime
    devices: int | None


async def status(root: Path, *, clock: Clock) -> list[CaStatus]:
    """Return every authority, device CAs first, the oldest first.

    Raises:
        SetupError: the data directory cannot be read.
        UnavailableError: the database failed.
    """
    data = DataDir(root)
    async with opened(root) as database:
        device = DeviceCas(data.online)
        found = []
        for files, ca in device.numbered:
            held = await _holders(database, files, ca, clock)
            found.append(_of_device_ca(files, ca, held, issuing=device.issuing))
        fleet = FleetCas.load(data.online)
        shown = fleet_cas.server_certificate(data.online)
        issuer = fleet_cas.key_id(fleet_cas.issuer_of(shown, fleet))
        for certificate in fleet.trusted:
            key = fleet_cas.key_id(certificate)
            known = fleet.enough_for(key)
            count = await device_authorities.strangers(database, known, clock=clock)
            found.append(
                CaStatus(
                    kind="fleet CA",
                    key=key,
                    state=_fleet_state(fleet.key_ids, key, issuer),
                    expires=certificate.not_valid_after_utc,
                    devices=count if known else None,
                )
            )
    return found


async def make_device_ca(root: Path, *, now: datetime) -> CaFiles:
    """Make a device CA that follows the present one as soon as the broker trusts it.

    Raises:
        RefusedError: one waits already.
        SetupError: not a data directory, or it cannot be written.
        UnavailableError: the database failed.
    """
    async with _changing(root) as (online, database):
        DeviceCas(online)  # is one of them usable at all?
        present = authorities.found(online)
        if any(each.waits for each in present):
            raise RefusedError(
                "a new device CA waits already for the broker to trust it: the running server puts "
                "it into office, or says in its log why not (device_ca_waits)"
            )
        files = CaFiles(online, present[-1].number + 1, waits=True)
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        certificate = following_authority("Skerry device CA", key, now=now)
        async with _recorded(database, "new_device_ca", [fleet_cas.key_id(certificate)]):
            durable_files.write_private(files.key, pem)
            durable_files.write(files.certificate, certificate.public_bytes(Encoding.PEM))
        return files


async def retire_device_cas(root: Path, *, force: bool, clock: Clock) -> list[str]:
    """Trust no longer the device CAs before the one that issues.

    Args:
        root: the data directory.
        force: also if devices depend on them.
        clock: the wall clock.

    Returns:
        Their key ids; empty if there is none.

    Raises:
        RefusedError: devices, or the ingest service, still show certificates of them.
        SetupError: not a data directory, or it cannot be written.
        UnavailableError: the database failed.
    """
    async with _changing(root) as (online, database):
        cas = DeviceCas(online)
        former = cas.former
        ids = [ca.key_id for _, ca in former]
        if not former:
            return []
        _check_ingest(online, cas)
        held = sum([await _holders(database, *each, clock) for each in former])
        if held and not force:
            raise RefusedError(
                counted(held, "device still holds a certificate", "devices still hold certificates")
                + " of it. Devices renew by themselves within hours of being online; the "
                "certificates of those that stay away expire within 90 days. With --force MQTT "
                "refuses them until they renew"
            )
        async with _recorded(database, "retire_device_ca", ids):
            async with database.writing() as session:
                await publication.retire(session, ids, now=clock())
            for files, _ in former:
                _remove(files)
        return ids


async def adopt_fleet_ca(root: Path, handover: bytes) -> list[str]:
    """Trust new fleet CAs, and let devices learn them; returns the keys that are new.

    Raises:
        RefusedError: it is no handover, or not of this fleet.
        SetupError: not a data directory, or it cannot be written.
        UnavailableError: the database failed.
    """
    async with _changing(root) as (online, database):
        present = FleetCas.load(online)
        after = fleet_cas.adopted(present, handover)
        new = [each for each in after.key_ids if each not in present.key_ids]
        async with _recorded(database, "adopt_fleet_ca", new):
            fleet_cas.store(online, after)
        return new


async def retire_fleet_cas(root: Path) -> list[str]:
    """Trust no longer the fleet CAs before the issuer of the server's certificate.

    Raises:
        RefusedError: the server still shows a certificate of the oldest one.
        SetupError: not a data directory, or it cannot be written.
        UnavailableError: the database failed.
    """
    async with _changing(root) as (online, database):
        present = FleetCas.load(online)
        after = fleet_cas.retired(present, fleet_cas.server_certificate(online))
        gone = [each for each in present.key_ids if each not in after.key_ids]
        async with _recorded(database, "retire_fleet_ca", gone):
            fleet_cas.store(online, after)
        return gone


async def check_known(root: Path, certificate: x509.Certificate, *, clock: Clock) -> None:
    """Accept a server certificate if every device in service trusts the fleet CA that signed it.

    Raises:
        RefusedError: some would be cut off; the message says how many.
        SetupError: the data directory cannot be read.
        UnavailableError: the database failed.
    """
    fleet = FleetCas.load(DataDir(root).online)
    known = fleet.enough_for(fleet_cas.key_id(fleet_cas.issuer_of(certificate, fleet)))
    if not known:
        return
    async with opened(root) as database:
        count = await device_authorities.strangers(database, known, clock=clock)
    if count:
        raise RefusedError(
            counted(count, "device does not trust", "devices do not trust")
            + " the new fleet CA yet and could not reach the server any more. Devices learn it "
            "within hours of being online. Wait, or renew the certificate with `--former-ca` "
            "meanwhile; with --force those devices need new claims"
        )


@asynccontextmanager
async def _changing(root: Path) -> AsyncIterator[tuple[Path, Database]]:
    """Open a data directory whose authorities change, and keep other commands out of that."""
    data = DataDir(root)
    async with opened(root) as database:
        with _alone(data.online):
            try:
                yield data.online, database
            except OSError as error:
                raise SetupError(f"cannot write below {data.online}: {error}") from error


@asynccontextmanager
async def _recorded(database: Database, action: str, keys: Sequence[str]) -> AsyncIterator[None]:
    """Write into the audit trail that a change of authorities begins, and that it is done.

    Files and trail cannot change together. What died between leaves the first entry without the
    second one, never a change without an entry.
    """
    await _note(database, f"authority.{action}.begin", keys)
    yield
    await _note(database, f"authority.{action}", keys)


async def _note(database: Database, action: str, keys: Sequence[str]) -> None:
    async with database.writing() as session:
        for key in keys:
            await trail.record(session, action, key)


async def _holders(database: Database, files: CaFiles, ca: DeviceCa, clock: Clock) -> int:
    """Count who depends on a device CA; what names no issuer is older than the second one."""
    issuers = [ca.key_id, None] if files.number == 1 else [ca.key_id]
    return sum([await device_authorities.holders(database, each, clock=clock) for each in issuers])


def _of_device_ca(files: CaFiles, ca: DeviceCa, held: int, *, issuing: DeviceCa) -> CaStatus:
    state = "waits" if files.waits else "issues" if ca is issuing else "former"
    expires = ca.certificate.not_valid_after_utc
    return CaStatus(kind="device CA", key=ca.key_id, state=state, expires=expires, devices=held)


def _fleet_state(keys: list[str], key: str, issuer: str) -> str:
    if key == issuer:
        return "issues"
    return "former" if keys.index(key) < keys.index(issuer) else "known"


def _check_ingest(online: Path, cas: DeviceCas) -> None:
    try:
        shown = x509.load_pem_x509_certificate((online / "ingest.crt").read_bytes())
    except (OSError, ValueError) as error:
        raise SetupError(f"cannot read the certificate {online / 'ingest.crt'}: {error}") from error
    if issuer_key_id(shown) != cas.issuing.key_id:
        raise RefusedError(
            "the ingest service still shows a certificate of it: start the server, which renews "
            "that within minutes"
        )


def _remove(files: CaFiles) -> None:
    """End the trust first: a key without a certificate is nobody's."""
    files.certificate.unlink()
    durable_files.sync_folder(files.online)
    files.key.unlink(missing_ok=True)
    durable_files.sync_folder(files.online)


@contextmanager
def _alone(online: Path) -> Iterator[None]:
    """Keep other commands out that change authorities."""
    descriptor = os.open(online, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise RefusedError("another `skerry server ca` command runs on this directory") from None
    finally:
        os.close(descriptor)
