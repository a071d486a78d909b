"""What the runtime says about itself and its models, whatever protocol asks."""

import functools
from collections.abc import Sequence

import msgspec

from edge_agent.inference.model_configuration import placement, platform
from edge_agent.inference.served_release import ServedRelease
from edge_agent.inference.v2_messages import (
    ModelMetadata,
    PlacedModelMetadata,
    ServerMetadata,
    TensorMetadata,
)
from fleet_protocol.manifest import TensorSpec

_EXTENSIONS = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
]
"""Names that Triton gives to what goes beyond the protocol's core."""

_SHARED_MEMORY = "system_shared_memory"


def server_metadata(*, shared_memory: bool) -> ServerMetadata:
    """Describe the runtime; reads the disk, so call it in a thread.

    Args:
        shared_memory: whether it is enabled.
    """
    return ServerMetadata(
        name="skerry",
        version=_installed_version(),
        extensions=[*_EXTENSIONS, _SHARED_MEMORY] if shared_memory else _EXTENSIONS,
    )


def model_metadata(served: ServedRelease, versions: Sequence[str] | None = None) -> ModelMetadata:
    """Describe a model.

    Args:
        served: the release that answers.
        versions: those that the caller can address, None for just this one.
    """
    release = served.release
    return ModelMetadata(
        name=release.family,
        versions=[release.version] if versions is None else list(versions),
        platform=platform(served),
        inputs=[_tensor(spec) for spec in release.inputs],
        outputs=[_tensor(spec) for spec in release.outputs],
    )


def placed_model_metadata(
    served: ServedRelease, versions: Sequence[str] | None = None
) -> PlacedModelMetadata:
    """Describe a model, and which of its variants runs where and why.

    Args:
        served: the release that answers.
        versions: those that the caller can address, None for just this one.
    """
    return PlacedModelMetadata(
        **msgspec.structs.asdict(model_metadata(served, versions)),
        parameters=placement(served),
    )


def _tensor(spec: TensorSpec) -> TensorMetadata:
    return TensorMetadata(name=spec.name, datatype=spec.datatype.value, shape=spec.shape)


@functools.cache
def _installed_version() -> str:
    import importlib.metadata  # noqa: PLC0415 (15 ms that only this question is worth)

    return importlib.metadata.version("skerry")
