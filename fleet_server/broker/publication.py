"""What brokers are told, the same by every server process: device CAs, revocation lists, sessions.

The database holds the public part of each device CA with its newest list. A process signs for the
authorities whose keys it has, in a transaction in which it also asks who is refused: so lists
follow one another, and none takes the place of one that knew more. What others signed it hands on
if that is proven, as `fleet_server.broker.acceptance` proves it: who can write into the database is
no authority.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server import tenancy
from fleet_server.broker import acceptance, revocation_list
from fleet_server.broker.revocation_list import RENEWED_AFTER, REPLACED_AFTER, Revoked, Signed
from fleet_server.broker.tables import BrokerAuthority
from fleet_server.broker.told import Authority, Told
from fleet_server.clock import Clock, from_unix_ms, unix_ms
from fleet_server.complaints import Complaints
from fleet_server.database import Database
from fleet_server.devices.authorities import DeviceCas
from fleet_server.devices.certificates import DeviceCa
from fleet_server.errors import RefusedError
from fleet_server.turns import take_turn


class Publication:
    """What one server process tells brokers."""

    def __init__(self, *, database: Database, cas: DeviceCas, clock: Clock) -> None:
        self._database = database
        self._cas = cas
        self._clock = clock
        self._complaints = Complaints(time.monotonic)
        self._signed_here: set[str] = set()
        self._listed: dict[str, tuple[int, frozenset[int]]] = {}

    async def current(self) -> Told:
        """Return what holds now, after signing what has to be signed for it.

        Raises:
            UnavailableError: the database failed.
        """
        now = self._clock()
        async with self._database.reading() as session:
            rows = await _rows(session)
            revoked = await revocation_list.revoked(session, now=now)
            shut_out = await revocation_list.shut_out_devices(session, now=now)
        if self._unsigned(rows, revoked, now):
            rows = await self._sign(now)
        told = [_told(each) for each in rows if each.retired_ms is None]
        return Told(authorities=self._proven(told, now), shut_out=shut_out)

    def _unsigned(
        self, rows: Sequence[BrokerAuthority], revoked: Revoked, now: datetime
    ) -> list[DeviceCa]:
        """Return the authorities of this process that have to sign."""
        known = {each.key_id: each for each in rows}
        return [ca for ca in self._cas.trusted if self._must(ca, known, revoked, now)]

    def _must(
        self, ca: DeviceCa, known: dict[str, BrokerAuthority], revoked: Revoked, now: datetime
    ) -> bool:
        row = known.get(ca.key_id)
        if row is None:
            return True
        if row.retired_ms is not None:
            return False
        if ca.key_id not in self._signed_here:  # the database may be an older one, restored
            return True
        number, listed = self._listed.get(ca.key_id, (-1, frozenset()))
        if number != row.number:
            listed = revocation_list.listed(row.list_pem)
            self._listed[ca.key_id] = (row.number, listed)
        age = now - from_unix_ms(row.signed_ms)
        return (
            not revoked.shut_out <= listed
            or age > RENEWED_AFTER
            or (age > REPLACED_AFTER and not revoked.replaced <= listed)
        )

    async def _sign(self, now: datetime) -> Sequence[BrokerAuthority]:
        with tenancy.everything():
            async with self._database.writing() as session:
                await take_turn(session, "revocation lists")
                rows = {each.key_id: each for each in await _rows(session)}
                revoked = await revocation_list.revoked(session, now=now)
                wanted = self._unsigned(list(rows.values()), revoked, now)
                for ca in wanted:
                    row = rows.get(ca.key_id) or self._new(ca)
                    await asyncio.to_thread(_list, ca, row, revoked, now)
                    session.add(row)
                await session.flush()
                made = await _rows(session)
        self._signed_here.update(ca.key_id for ca in wanted)
        return made

    def _new(self, ca: DeviceCa) -> BrokerAuthority:
        trusted = self._cas.trusted
        position = [each.key_id for each in trusted].index(ca.key_id)
        link = trusted[position - 1].link(ca.certificate) if position else None
        return BrokerAuthority(
            key_id=ca.key_id,
            certificate_pem=_pem(ca.certificate),
            link_pem=_pem(link) if link else "",
            number=0,
            dated_ms=0,
            made_ms=unix_ms(ca.certificate.not_valid_before_utc),
        )

    def _proven(self, told: Sequence[Authority], now: datetime) -> list[Authority]:
        """Leave out what nobody proves whose authority lies here."""
        known = list(self._cas.certificates)
        held: list[Authority] = []
        for each in told:
            try:
                certificate, _ = acceptance.proven(each, known, now=now)
            except RefusedError as error:
                self._complaints.log("device_ca_not_proven", reason=str(error))
                continue
            known.append(certificate)
            held.append(each)
        return held


async def retire(session: AsyncSession, key_ids: Sequence[str], *, now: datetime) -> None:
    """Let no broker trust some authorities any more, whatever servers still have their files."""
    await session.execute(
        update(BrokerAuthority)
        .where(BrokerAuthority.key_id.in_(key_ids))
        .values(retired_ms=unix_ms(now))
    )


def _list(ca: DeviceCa, row: BrokerAuthority, revoked: Revoked, now: datetime) -> None:
    before = Signed(row.list_pem, row.number, from_unix_ms(row.dated_ms)) if row.list_pem else None
    made = revocation_list.signed(ca, revoked.serials, before=before, now=now)
    row.list_pem, row.number = made.pem, made.number
    row.dated_ms, row.signed_ms = unix_ms(made.dated), unix_ms(now)


def _told(row: BrokerAuthority) -> Authority:
    return Authority(
        certificate_pem=row.certificate_pem, list_pem=row.list_pem, link_pem=row.link_pem
    )


async def _rows(session: AsyncSession) -> Sequence[BrokerAuthority]:
    query = select(BrokerAuthority).order_by(BrokerAuthority.made_ms, BrokerAuthority.key_id)
    return (await session.scalars(query)).all()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
