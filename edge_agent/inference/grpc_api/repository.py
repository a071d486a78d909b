"""The model repository: applications may look, and change nothing."""

from typing import NoReturn

from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.errors import ForbiddenError
from edge_agent.inference.grpc_api.descriptions import filled
from edge_agent.inference.grpc_api.wire import open_inference_pb2 as wire
from edge_agent.inference.repository_routes import repository_index


class Repository:
    """Shows which models there are."""

    def __init__(self, plane: DataPlane) -> None:
        """Look at a data plane."""
        self._plane = plane

    def index(self, request: wire.RepositoryIndexRequest) -> wire.RepositoryIndexResponse:
        """List the models."""
        entries = repository_index(self._plane, ready_only=request.ready, every_version=False)
        return wire.RepositoryIndexResponse(
            models=[filled(wire.RepositoryIndexResponse.ModelIndex(), entry) for entry in entries]
        )

    def load(self, _: wire.RepositoryModelLoadRequest) -> NoReturn:
        """Refuse to load a model.

        Raises:
            ForbiddenError: always.
        """
        raise _forbidden("load")

    def unload(self, _: wire.RepositoryModelUnloadRequest) -> NoReturn:
        """Refuse to unload a model.

        Raises:
            ForbiddenError: always.
        """
        raise _forbidden("unload")


def _forbidden(action: str) -> ForbiddenError:
    return ForbiddenError(
        f"applications cannot {action} models: this device serves what it has been assigned; "
        "assign another release, or ask on the admin socket"
    )
