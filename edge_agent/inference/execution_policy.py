"""How much the runtime takes on: queues, batches, memory, kept answers; made from the settings."""

from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.inference.memory_budget import MemoryPolicy
from edge_agent.inference.process_memory import default_budget_bytes
from edge_agent.inference.response_cache import ResponseCache
from edge_agent.inference.scheduling import QueueLimits
from edge_agent.runtime_api import ActiveRelease
from edge_agent.settings import ModelSettings, RuntimeSettings

_EVERY_FAMILY = ModelSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionPolicy:
    """What the data plane is told.

    Attributes:
        limits: for the scheduler of a release.
        memory: for all models together.
        cache: for answers; None keeps none.
    """

    limits: Callable[[ActiveRelease], QueueLimits]
    memory: MemoryPolicy
    cache: ResponseCache | None = None


def policy_from(settings: RuntimeSettings, *, workers: int) -> ExecutionPolicy:
    """Return the policy of the settings; looks at the memory that is available now.

    Args:
        settings: the runtime's section.
        workers: threads that the process has for models.
    """
    return ExecutionPolicy(
        limits=limits_from(settings, workers=workers),
        memory=MemoryPolicy(
            budget_bytes=settings.memory_budget_bytes or default_budget_bytes(),
            evict_idle=settings.evict_idle,
        ),
        cache=(
            ResponseCache(settings.response_cache_bytes) if settings.response_cache_bytes else None
        ),
    )


def limits_from(
    settings: RuntimeSettings, *, workers: int
) -> Callable[[ActiveRelease], QueueLimits]:
    """Return what says the limits of a release.

    Args:
        settings: a family's own values outrank the common ones.
        workers: threads that the process has; no model gets more instances than that.
    """

    def limits(release: ActiveRelease) -> QueueLimits:
        own = settings.models.get(release.family, _EVERY_FAMILY)
        wanted = min(_first(own.instances, settings.instances), workers)
        return QueueLimits(
            max_queue=_first(own.max_queue, settings.max_queue),
            instances=wanted or workers,
            wanted_instances=wanted or 1,
            max_batch=_first(own.max_batch, settings.max_batch),
            batch_wait_s=_first(own.batch_wait_us, settings.batch_wait_us) * 1e-6,
        )

    return limits


def _first(own: int | None, common: int) -> int:
    return common if own is None else own
