"""A release as Triton's model configuration, from which clients learn how it may be called.

Source: Triton's model configuration extension (protocol/extension_model_configuration.md). Only
what a release has is said; the rest of Triton's fields would be invented.
"""

from collections.abc import Sequence

import msgspec

from edge_agent.inference.scheduling import QueueLimits
from edge_agent.inference.served_release import ServedRelease
from edge_agent.inference.tensors import size_bytes
from fleet_protocol.manifest import Datatype, TensorSpec

_MAX_INT32 = 2**31 - 1
_CPU = "cpu"


class VersionPolicy(msgspec.Struct, frozen=True):
    """One version of a family answers: the one that the device has committed to."""

    latest: dict[str, int]


class TensorConfiguration(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An input or output, without the batch."""

    name: str
    data_type: str
    dims: list[int]
    reshape: dict[str, list[int]] | None = None


class InstanceGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Where the model runs, and how many calls at once."""

    name: str
    count: int
    kind: str


class DynamicBatching(msgspec.Struct, frozen=True, kw_only=True):
    """How calls that wait are joined.

    Attributes:
        preferred_batch_size: a batch of so many items waits for no more.
        max_queue_delay_microseconds: what one that is smaller waits at most.
    """

    preferred_batch_size: list[int]
    max_queue_delay_microseconds: int


class ModelConfiguration(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Answer of ``GET /v2/models/<model>/config``.

    Attributes:
        max_batch_size: items that a request may hold; 0 if the inputs have no batch dimension.
        dynamic_batching: None where every call runs for itself.
        response_cache: None where no answers are kept. Triton's load generator takes a model whose
            calls are answered without running for one that was not called, unless it is told here.
    """

    name: str
    platform: str
    backend: str
    version_policy: VersionPolicy
    max_batch_size: int
    input: list[TensorConfiguration]
    output: list[TensorConfiguration]
    instance_group: list[InstanceGroup]
    default_model_filename: str
    parameters: dict[str, dict[str, str]]
    model_transaction_policy: dict[str, bool]
    dynamic_batching: DynamicBatching | None = None
    response_cache: dict[str, bool] | None = None


def platform(served: ServedRelease) -> str:
    """Return the name of backend and format, as metadata and configuration give it."""
    return f"{served.backend_name}_{served.release.format}"


def placement(served: ServedRelease) -> dict[str, str]:
    """Say which of a release's variants runs where, how and why; parameters of its descriptions."""
    release = served.release
    said = {
        "variant": release.variant,
        "accelerator": release.accelerator,
        "choice": release.choice,
    }
    if served.why_alone:
        said["batching"] = f"off: {served.why_alone}"
    return said


def configuration(served: ServedRelease, *, max_request_bytes: int) -> ModelConfiguration:
    """Return the configuration of a release.

    Args:
        served: the release.
        max_request_bytes: what bounds the items of a request.
    """
    release = served.release
    batched = served.batchable
    kind = "KIND_CPU" if release.accelerator == _CPU else "KIND_MODEL"
    return ModelConfiguration(
        name=release.family,
        platform=platform(served),
        backend=served.backend_name,
        version_policy=VersionPolicy({"num_versions": 1}),
        max_batch_size=_most_items(release.inputs, max_request_bytes) if batched else 0,
        input=[_tensor(spec, batched=batched) for spec in release.inputs],
        output=[_tensor(spec, batched=batched) for spec in release.outputs],
        instance_group=[
            InstanceGroup(
                name=f"{release.family}_{release.accelerator}",
                count=served.scheduler.limits.instances,
                kind=kind,
            )
        ],
        default_model_filename=f"model.{release.format}",
        parameters={
            name: {"string_value": text}
            for name, text in {"version": release.version, **placement(served)}.items()
        },
        model_transaction_policy={"decoupled": False},
        dynamic_batching=_batching(served.scheduler.limits),
        response_cache=None if served.cache is None else {"enable": True},
    )


def _batching(limits: QueueLimits) -> DynamicBatching | None:
    if limits.max_batch == 1:
        return None
    return DynamicBatching(
        preferred_batch_size=[limits.max_batch],
        max_queue_delay_microseconds=round(limits.batch_wait_s * 1e6),
    )


def _most_items(inputs: Sequence[TensorSpec], max_request_bytes: int) -> int:
    item_bytes = sum(
        size_bytes(spec.datatype, [1 if size == -1 else size for size in spec.shape[1:]])
        for spec in inputs
    )
    return max(1, min(_MAX_INT32, max_request_bytes // max(1, item_bytes)))


def _tensor(spec: TensorSpec, *, batched: bool) -> TensorConfiguration:
    dims = spec.shape[1:] if batched else spec.shape
    datatype = "STRING" if spec.datatype is Datatype.BYTES else spec.datatype.value
    return TensorConfiguration(
        name=spec.name,
        data_type=f"TYPE_{datatype}",
        # Triton knows no configuration without dimensions and says it so.
        dims=dims or [1],
        reshape=None if dims else {"shape": []},
    )
