"""Routes of devices: enrolment for the devices themselves, lists for operators."""

import msgspec
from fastapi import APIRouter, Request, Response

from fleet_protocol import messages
from fleet_protocol.errors import ProtocolError
from fleet_server.accounts.authorization import Decommissioner, Reader
from fleet_server.assignments import entries
from fleet_server.assignments.entries import Entry
from fleet_server.assignments.tables import Assignment
from fleet_server.devices import update_progress
from fleet_server.devices.schemas import (
    AssignedEntry,
    AssignmentView,
    DevicePage,
    DeviceView,
    FamilyUpdate,
)
from fleet_server.devices.service import DeviceRecord
from fleet_server.paging import AfterName, Limit
from fleet_server.services import Wired

MAX_ENROLL_BYTES = 64 * 1024

device_router = APIRouter(prefix="/device/v1", tags=["device"])
operator_router = APIRouter(prefix="/api/v1/devices", tags=["devices"])


@device_router.post("/enroll")
async def enroll(request: Request, services: Wired) -> Response:
    """Exchange a claim token and a certificate request for a certificate.

    Body and answer are `fleet_protocol.messages.EnrollRequest` and ``EnrollResponse``. The same
    token with the same key gets the same certificate again.
    """
    wanted = messages.decode(await request.body(), messages.EnrollRequest)
    device = await services.enrollment.enroll(token=wanted.token, csr_pem=wanted.csr_pem)
    response = messages.EnrollResponse(
        device_id=device.id,
        certificate_pem=device.certificate_pem,
        mqtt_host=services.settings.public_host or request.url.hostname or services.settings.host,
        mqtt_port=services.settings.mqtt_port,
    )
    return Response(messages.encode(response), media_type="application/json")


@operator_router.get("")
async def list_devices(
    services: Wired, _account: Reader, after: AfterName = None, limit: Limit = 100
) -> DevicePage:
    """List devices in the order of their ids."""
    records = await services.devices.page(after=after, limit=limit)
    return DevicePage(
        devices=[_view(record) for record in records],
        next_after=records[-1].device.id if len(records) == limit else None,
    )


@operator_router.get("/{device_id}")
async def get_device(device_id: str, services: Wired, _account: Reader) -> DeviceView:
    """Show one device."""
    return _view(await services.devices.get(device_id))


@operator_router.post("/{device_id}/decommission")
async def decommission_device(
    device_id: str, services: Wired, _account: Decommissioner
) -> DeviceView:
    """Shut a device out for good: its certificate and tokens are refused from now on."""
    return _view(await services.devices.decommission(device_id))


def _view(record: DeviceRecord) -> DeviceView:
    device, assignment = record.device, record.assignment
    assigned = entries.decode(assignment.entries) if assignment else []
    word, families = update_progress.of_device(
        assigned,
        assignment_version=assignment.version if assignment else 0,
        reported=_reported(device.reported),
    )
    return DeviceView(
        id=device.id,
        online=device.online,
        last_seen_ms=device.last_seen_ms,
        enrolled_ms=device.enrolled_ms,
        decommissioned_ms=device.decommissioned_ms,
        public_key_sha256=device.public_key_sha256,
        certificate_serial=device.certificate_serial,
        certificate_expires_ms=device.certificate_expires_ms,
        update=word,
        families=[FamilyUpdate.model_validate(family, from_attributes=True) for family in families],
        assignment=_assignment(assignment, assigned) if assignment else None,
        reported=msgspec.json.decode(device.reported) if device.reported else None,
    )


def _assignment(row: Assignment, assigned: list[Entry]) -> AssignmentView:
    return AssignmentView(
        version=row.version,
        signed_ms=row.signed_ms,
        expires_ms=row.expires_ms,
        releases=[AssignedEntry.model_validate(entry, from_attributes=True) for entry in assigned],
    )


def _reported(stored: str | None) -> messages.Reported | None:
    try:
        return messages.decode(stored.encode(), messages.Reported) if stored else None
    except ProtocolError:
        return None  # stored by a version that spoke another schema
