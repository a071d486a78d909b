"""Several copies of a model whose library runs one call at a time."""

from collections.abc import Sequence
from queue import SimpleQueue

from edge_agent.inference.backends.base import Model
from edge_agent.inference.tensors import Tensor


class ModelPool:
    """Copies of one model, each used by one call at a time; itself a `Model`."""

    def __init__(self, models: Sequence[Model]) -> None:
        """Take over the copies.

        Args:
            models: at least one; ours to close.
        """
        self._models = list(models)
        self._free: SimpleQueue[Model] = SimpleQueue()
        for model in models:
            self._free.put(model)

    @property
    def max_concurrent_runs(self) -> int:
        """Return how many calls make progress at once."""
        return len(self._models)

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run a free copy, or wait for one; see `Model.run`.

        Raises:
            BackendError: the library failed.
        """
        model = self._free.get()
        try:
            return model.run(inputs)
        finally:
            self._free.put(model)

    def close(self) -> None:
        """Free all copies."""
        for model in self._models:
            model.close()
