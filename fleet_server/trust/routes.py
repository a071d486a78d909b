"""Routes of trust: director roots for devices, adoption, expiries."""

import asyncio
import hashlib
import re

import msgspec
from fastapi import APIRouter, Request, Response

from fleet_protocol import messages
from fleet_server import tenancy
from fleet_server.accounts.authorization import Follower, Publisher, Reader, bearer_token
from fleet_server.clock import utc_now
from fleet_server.errors import NotFoundError, NotPermittedError
from fleet_server.services import Wired
from fleet_server.trust.schemas import AdoptRequest, AdoptResponse, ExpiryList, ExpiryView

device_router = APIRouter(prefix="/device/v1", tags=["device"])
router = APIRouter(prefix="/api/v1/trust", tags=["trust"])

_ROOT = re.compile(r"[1-9][0-9]{0,8}\.root\.json", re.ASCII)


@device_router.get("/director/{name}")
async def director_root(name: str, request: Request, services: Wired) -> Response:
    """Hand a root of the director to a device: ``<version>.root.json``."""
    await services.devices.authenticate(bearer_token(request))
    if _ROOT.fullmatch(name) is None:
        raise NotFoundError(f"{name[:100]!r} is not <version>.root.json")
    try:
        content = await asyncio.to_thread(services.trust.director.file(name).read_bytes)
    except OSError:
        raise NotFoundError(f"there is no director root {name}") from None
    return Response(content, media_type="application/json")


@device_router.post("/authorities")
async def authorities(request: Request, services: Wired) -> Response:
    """Say who issues device certificates now, and which fleet CAs follow the first one.

    Body and answer are `fleet_protocol.messages.AuthoritiesRequest` and ``Authorities``.
    """
    device_id = await services.devices.authenticate(bearer_token(request))
    wanted = messages.decode(await request.body(), messages.AuthoritiesRequest)
    told = await services.authorities.tell(device_id, wanted)
    return Response(messages.encode(told), media_type="application/json")


@router.post("/metadata")
async def adopt(body: AdoptRequest, services: Wired, _account: Publisher) -> AdoptResponse:
    """Adopt metadata made offline: roots of either repository, targets.json, lists of families.

    Each document must be signed by the threshold of its role and follow what is current; roots by
    the one before and by themselves. Documents that belong together are sent together. Those that
    are current already are passed over, so a request may be repeated.
    """
    documents = [document.encode() for document in body.documents]
    return AdoptResponse(adopted=await services.trust.adopt(documents))


@router.get("/broker", responses={304: {"description": "The caller has what holds now."}})
async def tell_broker(request: Request, services: Wired, account: Follower) -> Response:
    """Tell a broker on another machine which device CAs to trust and which devices to refuse.

    The answer is `fleet_server.broker.told.Told`. A broker serves the devices of all tenants, so
    only tokens of the default one are told.
    """
    if account.tenant != tenancy.DEFAULT:
        raise NotPermittedError(
            "a broker serves the devices of all tenants: use a token of the tenant default"
        )
    told = msgspec.json.encode(await services.publication.current())
    etag = f'"{hashlib.sha256(told).hexdigest()}"'
    has_it = request.headers.get("if-none-match") == etag
    await services.followers.fetched(account.name, has_it=has_it)
    if has_it:
        return Response(status_code=304, headers={"ETag": etag})
    return Response(told, media_type="application/json", headers={"ETag": etag})


@router.get("/expiries")
async def list_expiries(services: Wired, _account: Reader) -> ExpiryList:
    """List what runs out: signed metadata and certificates, with what to do about it."""
    now = utc_now()
    return ExpiryList(
        expiries=[
            ExpiryView(
                name=one.name,
                kind=one.kind,
                key_ids=list(one.key_ids),
                expires=one.expires,
                days_left=one.days_left(now),
                level=one.level(now),
                action=one.action,
            )
            for one in await services.trust.expiries()
        ]
    )
