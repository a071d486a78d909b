"""Between gRPC and the methods of the service: bytes to messages, errors to statuses."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import grpc.aio
from google.protobuf.message import DecodeError, Message

from edge_agent.inference.errors import RequestError
from edge_agent.inference.grpc_api.statuses import NotSentError, status_of

Context = grpc.aio.ServicerContext[bytes, bytes]
Method = Callable[[bytes, Context], Awaitable[bytes]]
"""A method of the service; all that it raises is the end of a call that was refused."""

Reader = Callable[[object, Context], Awaitable[bytes]]
"""The same, which reads its request itself."""

_Request = TypeVar("_Request", bound=Message)


def answering(
    request_type: type[_Request], answer: Callable[[_Request], Message | Awaitable[Message]]
) -> Method:
    """Return a method that ends a call with the status of whatever goes wrong."""

    async def method(payload: bytes, context: Context) -> bytes:
        try:
            given = answer(parsed(request_type, payload))
            response = given if isinstance(given, Message) else await given
            return response.SerializeToString()
        except Exception as error:  # noqa: BLE001 (every call is answered; the unknown is logged)
            await refuse(context, error)

    return method


def reading(method: Method, *, patience_s: float) -> Reader:
    """Return a method that reads its request itself, and does not wait for it for ever.

    gRPC would, and a caller that opens calls and sends nothing would hold all places. On the wire
    there is no difference between a call with one request and one with a stream of them.

    Args:
        method: answers.
        patience_s: for the whole request.
    """

    async def reader(_: object, context: Context) -> bytes:
        try:
            async with asyncio.timeout(patience_s):
                payload = await context.read()
        except TimeoutError:
            await refuse(context, NotSentError(f"no request came within {patience_s:g} s"))
        if not isinstance(payload, bytes):
            await refuse(context, RequestError("the call ended without a request"))
        return await method(payload, context)

    return reader


def parsed(request_type: type[_Request], payload: bytes) -> _Request:
    """Return a request.

    gRPC could parse it, but would end the call with status UNKNOWN and log a traceback.

    Raises:
        RequestError: the bytes are none.
    """
    try:
        return request_type.FromString(payload)
    except DecodeError:
        raise RequestError(f"the message is not a {request_type.DESCRIPTOR.name}") from None


async def refuse(context: Context, error: Exception) -> NoReturn:
    """End a call with the status of an error."""
    status = status_of(error)
    await context.abort(status.code, status.message)
