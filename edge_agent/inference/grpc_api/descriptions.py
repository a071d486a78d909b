"""What the service says about itself and its models."""

from collections.abc import Sequence

from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.errors import UnavailableError, UnknownModelError
from edge_agent.inference.grpc_api.wire import open_inference_pb2 as wire
from fleet_protocol.manifest import TensorSpec


class Descriptions:
    """Health and metadata."""

    def __init__(self, plane: DataPlane) -> None:
        """Describe a data plane."""
        self._plane = plane

    def live(self, _: wire.ServerLiveRequest) -> wire.ServerLiveResponse:
        """Say that the process answers."""
        return wire.ServerLiveResponse(live=True)

    def ready(self, _: wire.ServerReadyRequest) -> wire.ServerReadyResponse:
        """Say whether everything that was committed is served."""
        return wire.ServerReadyResponse(ready=self._plane.ready)

    def model_ready(self, request: wire.ModelReadyRequest) -> wire.ModelReadyResponse:
        """Say whether a model is served."""
        try:
            self._plane.active(request.name, request.version or None)
        except (UnknownModelError, UnavailableError):
            return wire.ModelReadyResponse(ready=False)
        return wire.ModelReadyResponse(ready=True)

    def model(self, request: wire.ModelMetadataRequest) -> wire.ModelMetadataResponse:
        """Describe what a model takes and gives.

        Raises:
            UnknownModelError: it is not served.
            UnavailableError: it should be but could not be loaded.
        """
        served = self._plane.active(request.name, request.version or None)
        release = served.release
        return wire.ModelMetadataResponse(
            name=release.family,
            versions=[release.version],
            platform=f"{served.backend_name}_{release.format}",
            inputs=_tensors(release.inputs),
            outputs=_tensors(release.outputs),
        )


def _tensors(
    specs: Sequence[TensorSpec],
) -> list[wire.ModelMetadataResponse.TensorMetadata]:
    return [
        wire.ModelMetadataResponse.TensorMetadata(
            name=spec.name, datatype=spec.datatype.value, shape=spec.shape
        )
        for spec in specs
    ]
