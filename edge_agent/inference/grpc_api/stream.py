"""ModelStreamInfer: requests in, answers out in the same order, some of them in work at once.

One task reads requests and begins them, another writes the answers. A queue between them bounds what
is in work: when it is full nothing is read, and gRPC's flow control holds the caller back.
"""

import asyncio
from collections.abc import Awaitable, Callable

from grpc import StatusCode
from grpc.aio import EOF

from edge_agent.inference.errors import UnavailableError
from edge_agent.inference.grpc_api.calls import Context, refuse
from edge_agent.inference.grpc_api.statuses import Status

MAX_IN_WORK = 16
"""Requests of one stream; more would only wait for the model in our memory."""


class Failed(Exception):
    """A request of the stream failed, and the caller asked for a status instead of a message."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status
