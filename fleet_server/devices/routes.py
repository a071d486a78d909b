"""Routes of devices: enrolment for the devices themselves, lists for operators."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from fleet_protocol import messages
from fleet_protocol.errors import ProtocolError
from fleet_server.accounts.authorization import (
    Decommissioner,
    Operator,
    Reader,
    bearer_token,
)
from fleet_server.assignments import entries
from fleet_server.assignments.entries import Entry
from fleet_server.devices import attributes, update_progress
from fleet_server.devices.health import Health
from fleet_server.devices.records import DeviceRecord, ShownAssignment
from fleet_server.devices.schemas import (
    AssignedEntry,
    AssignmentView,
    DeviceCount,
    DevicePage,
    DeviceView,
    FamilyUpdate,
    LabelChanges,
)
from fleet_server.devices.selector import MAX_LENGTH, parse
from fleet_server.devices.service import Filters
from fleet_server.paging import AfterName, Limit, cursor
from fleet_server.services import Wired

MAX_ENROLL_BYTES = 64 * 1024

device_router = APIRouter(prefix="/device/v1", tags=["device"])
operator_router = APIRouter(prefix="/api/v1", tags=["devices"])


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


@device_router.post("/certificate")
async def renew_certificate(request: Request, services: Wired) -> Response:
    """Renew a device's certificate; the old one serves until the new one is confirmed.

    Body and answer are `fleet_protocol.messages.RenewRequest` and ``RenewResponse``.
    """
    device_id = await services.devices.authenticate(bearer_token(request))
    wanted = messages.decode(await request.body(), messages.RenewRequest)
    pem = await services.renewal.request(device_id, csr_pem=wanted.csr_pem)
    response = messages.RenewResponse(certificate_pem=pem)
    return Response(messages.encode(response), media_type="application/json")


@device_router.post("/certificate/confirm", status_code=204)
async def confirm_certificate(request: Request, services: Wired) -> Response:
    """Let the old key go: the device holds its new key and certificate.

    The body is a `fleet_protocol.messages.ConfirmRequest`, the token signed with the new key.
    """
    await services.renewal.confirm(bearer_token(request), body=await request.body())
    return Response(status_code=204)


def _filters(
    selector: Annotated[
        str | None,
        Query(max_length=MAX_LENGTH, description="such as `site=oslo,accelerator in (cuda)`"),
    ] = None,
    search: Annotated[str, Query(max_length=63, description="a part of the id")] = "",
    group: Annotated[str | None, Query(max_length=64, description="name of a group")] = None,
    health: Annotated[Health | None, Query(description="only devices of this health")] = None,
) -> Filters:
    selectors = () if selector is None else (parse(selector),)
    return Filters(selectors=selectors, search=search, group=group, health=health)


Filtered = Annotated[Filters, Depends(_filters)]


@operator_router.get("/devices")
async def list_devices(
    services: Wired,
    _account: Reader,
    filters: Filtered,
    after: AfterName = None,
    limit: Limit = 100,
) -> DevicePage:
    """List devices in the order of their ids; of several filters all must hold.

    Each answer takes a bounded time. Where few of very many devices are wanted, a page may hold
    fewer than `limit`, or none, although more follow: `next_after` alone says so.
    """
    page = await services.devices.page(filters, after=after, limit=limit)
    return DevicePage(
        devices=[_view(record) for record in page.devices],
        next_after=None if page.next_after is None else cursor(page.next_after),
    )


@operator_router.get("/device-count")
async def count_devices(services: Wired, _account: Reader, filters: Filtered) -> DeviceCount:
    """Count devices, up to 10,000 and for a bounded time: `is_capped` says that there are more."""
    counted = await services.devices.count(filters)
    return DeviceCount(devices=counted.number, is_capped=counted.is_capped)


@operator_router.get("/devices/{device_id}")
async def get_device(device_id: str, services: Wired, _account: Reader) -> DeviceView:
    """Show one device."""
    return _view(await services.devices.get(device_id))


@operator_router.patch("/devices/{device_id}/labels")
async def label_device(
    device_id: str, changes: LabelChanges, services: Wired, _account: Operator
) -> DeviceView:
    """Set labels of a device; null removes one, those not named stay."""
    return _view(await services.devices.label(device_id, changes.labels))


@operator_router.post("/devices/{device_id}/revoke")
async def revoke_device(device_id: str, services: Wired, _account: Decommissioner) -> DeviceView:
    """Refuse the device's key from now on; a claim made with `--replace` brings it back."""
    return _view(await services.devices.revoke(device_id))


@operator_router.post("/devices/{device_id}/decommission")
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
        health=record.health,
        labels=attributes.decode_labels(device.labels),
        facts=attributes.decode_facts(device.facts),
        update=word,
        families=[FamilyUpdate.model_validate(family, from_attributes=True) for family in families],
        assignment=_assignment(assignment, assigned) if assignment else None,
        reported=msgspec.json.decode(device.reported) if device.reported else None,
    )


def _assignment(row: ShownAssignment, assigned: list[Entry]) -> AssignmentView:
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
