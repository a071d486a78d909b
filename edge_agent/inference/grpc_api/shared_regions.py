"""Registering shared memory over gRPC: the regions are those of HTTP."""

import msgspec

from edge_agent.inference.errors import NotOfferedError, RequestError, UnknownModelError
from edge_agent.inference.grpc_api.descriptions import filled
from edge_agent.inference.grpc_api.wire import open_inference_pb2 as wire
from edge_agent.inference.shared_memory import Regions, RegionStatus
from edge_agent.inference.shared_memory_routes import MAX_NAME, RegisterSystemRegion

_Status = wire.SystemSharedMemoryStatusResponse.RegionStatus


class SharedRegions:
    """System shared memory, and the polite answer about that of CUDA devices."""

    def __init__(self, regions: Regions | None) -> None:
        """Work on regions; None where shared memory is not enabled."""
        self._regions = regions

    def status(
        self, request: wire.SystemSharedMemoryStatusRequest
    ) -> wire.SystemSharedMemoryStatusResponse:
        """Show one region, or all.

        Raises:
            UnknownModelError: nothing of that name is registered.
        """
        if self._regions is None:
            _refuse_name(request.name)
            return wire.SystemSharedMemoryStatusResponse()
        found = self._regions.status(request.name or None)
        return wire.SystemSharedMemoryStatusResponse(
            regions={region.name: filled(_Status(), region) for region in found}
        )

    def register(
        self, request: wire.SystemSharedMemoryRegisterRequest
    ) -> wire.SystemSharedMemoryRegisterResponse:
        """Add a region.

        Raises:
            NotOfferedError: shared memory is not enabled.
            RequestError: the region cannot be used.
            ConflictError: the name is taken.
        """
        if self._regions is None:
            raise NotOfferedError(
                "shared memory is not enabled here: set runtime.shared_memory in agent.toml and "
                "restart the runtime, or send raw contents"
            )
        if not request.name or len(request.name) > MAX_NAME:
            raise RequestError(f"the name of a region has 1 to {MAX_NAME} characters")
        try:
            asked = msgspec.convert(
                {"key": request.key, "offset": request.offset, "byte_size": request.byte_size},
                RegisterSystemRegion,
            )
        except msgspec.ValidationError as error:
            raise RequestError(f"not a shared memory region: {error}") from error
        self._regions.register(
            RegionStatus(
                name=request.name, key=asked.key, offset=asked.offset, byte_size=asked.byte_size
            )
        )
        return wire.SystemSharedMemoryRegisterResponse()

    def unregister(
        self, request: wire.SystemSharedMemoryUnregisterRequest
    ) -> wire.SystemSharedMemoryUnregisterResponse:
        """Forget one region, or all; none there is fine."""
        if self._regions is not None:
            self._regions.unregister(request.name or None)
        return wire.SystemSharedMemoryUnregisterResponse()

    def cuda_status(
        self, request: wire.CudaSharedMemoryStatusRequest
    ) -> wire.CudaSharedMemoryStatusResponse:
        """Say that nothing is registered.

        Raises:
            UnknownModelError: a region is asked for by name.
        """
        _refuse_name(request.name)
        return wire.CudaSharedMemoryStatusResponse()

    def cuda_register(
        self, _: wire.CudaSharedMemoryRegisterRequest
    ) -> wire.CudaSharedMemoryRegisterResponse:
        """Refuse.

        Raises:
            NotOfferedError: always.
        """
        raise NotOfferedError(
            "shared memory of CUDA devices is not offered here; use system shared memory or raw "
            "contents"
        )

    def cuda_unregister(
        self, _: wire.CudaSharedMemoryUnregisterRequest
    ) -> wire.CudaSharedMemoryUnregisterResponse:
        """Do nothing, which is what clients that clean up expect."""
        return wire.CudaSharedMemoryUnregisterResponse()


def _refuse_name(name: str) -> None:
    if name:
        raise UnknownModelError(f"no shared memory region {name[:MAX_NAME]!r} is registered")
