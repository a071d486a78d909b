"""Between gRPC and the methods of the service: bytes to messages, errors to statuses."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import grpc.aio
from google.protobuf.message import DecodeError, Message

from edge_agent.inference.error_answers import ErrorAnswers
from edge_agent.inference.errors import NotSentError, RequestError
from edge_agent.inference.grpc_api.statuses import status_of

Context = grpc.aio.ServicerContext[bytes, bytes]
Method = Callable[[bytes, Context], Awaitable[bytes]]
"""A method of the service; it raises what is wrong with the request, or went wrong."""

Reader = Callable[[object, Context], Awaitable[bytes]]
"""The same, which reads its request itself; all that it raises is the end of a refused call."""

_Request = TypeVar("_Request", bound=Message)


def answering(
    request_type: type[_Request], answer: Callable[[_Request], Message | Awaitable[Message]]
) -> Method:
    """Return a method that turns a message into another one."""

    async def method(payload: bytes, _: Context) -> bytes:
        given = answer(parsed(request_type, payload))
        response = given if isinstance(given, Message) else await given
        return response.SerializeToString()

    return method


def reading(method: Method, *, patience_s: float, error_answers: ErrorAnswers) -> Reader:
    """Return a method that reads its request itself, and does not wait for it for ever.

    gRPC would, and a caller that opens calls and sends nothing would hold all places. On the wire
    there is no difference between a call with one request and one with a stream of them.

    Whatever goes wrong ends the call with its status.

    Args:
        method: answers.
        patience_s: for the whole request.
        error_answers: takes note of what went wrong.
    """

    async def reader(_: object, context: Context) -> bytes:
        try:
            return await method(await _received(context, patience_s), context)
        except grpc.aio.BaseError:
            raise  # gRPC's own: the call is over, and there is nobody to tell
        except Exception as error:  # noqa: BLE001 (every call is answered; the unknown is logged)
            error_answers.note(error)
            await refuse(context, error)

    return reader


async def _received(context: Context, patience_s: float) -> bytes:
    try:
        async with asyncio.timeout(patience_s):
            payload = await context.read()
    except TimeoutError:
        raise NotSentError(f"no request came within {patience_s:g} s") from None
    if not isinstance(payload, bytes):
        raise RequestError("the call ended without a request")
    return payload


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
