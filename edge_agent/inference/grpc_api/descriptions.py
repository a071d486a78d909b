"""What the service says about itself and its models: health, metadata, configuration, statistics.

The content is made where HTTP takes it from too; here it changes into messages, field by field of
the same name.
"""

import asyncio
from typing import TypeVar

import msgspec
from google.protobuf import json_format
from google.protobuf.message import Message

from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.errors import UnavailableError, UnknownModelError
from edge_agent.inference.grpc_api.wire import open_inference_pb2 as wire
from edge_agent.inference.metadata import model_metadata, server_metadata
from edge_agent.inference.model_configuration import configuration, placement
from edge_agent.inference.served_release import ServedRelease

_Message = TypeVar("_Message", bound=Message)


class Descriptions:
    """Describes a data plane as applications see it: the active releases."""

    def __init__(self, plane: DataPlane, *, max_request_bytes: int, shared_memory: bool) -> None:
        """Change nothing, ever.

        Args:
            plane: holds the models.
            max_request_bytes: what a request may have.
            shared_memory: whether it is enabled.
        """
        self._plane = plane
        self._max_request_bytes = max_request_bytes
        self._shared_memory = shared_memory

    def live(self, _: wire.ServerLiveRequest) -> wire.ServerLiveResponse:
        """Say that the process answers."""
        return wire.ServerLiveResponse(live=True)

    def ready(self, _: wire.ServerReadyRequest) -> wire.ServerReadyResponse:
        """Say whether everything that was committed is served."""
        return wire.ServerReadyResponse(ready=self._plane.ready)

    def model_ready(self, request: wire.ModelReadyRequest) -> wire.ModelReadyResponse:
        """Say whether a model is served."""
        try:
            served = self._served(request)
        except (UnknownModelError, UnavailableError):
            return wire.ModelReadyResponse(ready=False)
        stuck = served.asleep and request.name in self._plane.problems
        return wire.ModelReadyResponse(ready=not stuck)

    async def server(self, _: wire.ServerMetadataRequest) -> wire.ServerMetadataResponse:
        """Describe the runtime."""
        described = await asyncio.to_thread(server_metadata, shared_memory=self._shared_memory)
        return filled(wire.ServerMetadataResponse(), described)

    def model(self, request: wire.ModelMetadataRequest) -> wire.ModelMetadataResponse:
        """Describe what a model takes and gives, and which of its variants runs where and why.

        Raises:
            InferenceError: it is not served.
        """
        served = self._served(request)
        message = filled(wire.ModelMetadataResponse(), model_metadata(served))
        for name, text in placement(served).items():
            message.parameters[name].string_param = text
        return message

    def configuration(self, request: wire.ModelConfigRequest) -> wire.ModelConfigResponse:
        """Describe how a model may be called.

        Raises:
            InferenceError: it is not served.
        """
        described = configuration(self._served(request), max_request_bytes=self._max_request_bytes)
        return wire.ModelConfigResponse(config=filled(wire.ModelConfig(), described))

    def statistics(self, request: wire.ModelStatisticsRequest) -> wire.ModelStatisticsResponse:
        """Say what a model has done, or all of them.

        Raises:
            InferenceError: it is not served.
        """
        served = (
            [self._served(request)]
            if request.name
            else [self._plane.described(family) for family in self._plane.families]
        )
        return wire.ModelStatisticsResponse(
            model_stats=[
                filled(wire.ModelStatistics(), self._plane.statistics(one)) for one in served
            ]
        )

    def _served(
        self,
        request: wire.ModelReadyRequest
        | wire.ModelMetadataRequest
        | wire.ModelConfigRequest
        | wire.ModelStatisticsRequest,
    ) -> ServedRelease:
        return self._plane.described(request.name, request.version or None)


def filled(message: _Message, struct: msgspec.Struct) -> _Message:
    """Return a message with those fields of a struct that it has too.

    JSON may say more than the protocol's messages can.
    """
    return json_format.ParseDict(msgspec.to_builtins(struct), message, ignore_unknown_fields=True)
