"""RLlib's PPO learner without what a small network on a CPU waits for."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from carl.errors import TaskError

_SampleBatch: Any = SampleBatch  # RLlib leaves it untyped
NOT_FOR_THE_LOSS = (Columns.LOSS_MASK, Columns.TERMINATEDS, Columns.TRUNCATEDS, WEIGHTS_SEQ_NO)


class PPOLearner(PPOTorchLearner):
    """The same updates: Adam steps all parameters in one kernel, minibatches are gathered by index, and instead of
    every gradient the loss is looked at. Raises TaskError if that is not a number; RLlib would go on and learn nothing.
    """

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        parameters = self.get_parameters(self.module[module_id])
        optimizer = torch.optim.Adam(parameters, fused=True)
        self.register_optimizer(
            module_id=module_id, optimizer=optimizer, params=parameters, lr_or_lr_schedule=config.lr
        )

    def _create_iterator_if_necessary(self, *, training_data: Any, **asked: Any) -> Iterable[MultiAgentBatch]:
        modules: Any = self.module
        if any(module.is_stateful() for module in modules.values()):
            return super()._create_iterator_if_necessary(training_data=training_data, **asked)
        batch: Any = self._make_batch_if_necessary(training_data)  # type: ignore[no-untyped-call]
        return Minibatches(batch, asked["minibatch_size"], asked["num_epochs"], asked.get("num_total_minibatches", 0))

    def compute_gradients(self, loss_per_module: dict[str, Any], **kwargs: Any) -> Any:
        check_finite(loss_per_module)
        return super().compute_gradients(loss_per_module, **kwargs)


def check_finite(losses: dict[str, Any]) -> None:
    """Raise TaskError if one of ``losses`` is not a number."""
    if not all(torch.isfinite(loss) for loss in losses.values()):
        raise TaskError("the loss is not a number any more: look for NaN in what the task observes or pays")


class Minibatches:
    """The valid rows of ``batch``, shuffled ``epochs`` times and cut into minibatches of ``size``; what is left over is
    dropped. RLlib's own iterator slices, joins and wraps columns, and keeps the rows that only bootstrap values.

    With ``total`` other than 0 there are so many: learners beside this one wait for each.
    """

    def __init__(self, batch: MultiAgentBatch, size: int, epochs: int, total: int = 0) -> None:
        policies: Any = batch.policy_batches
        ((self._module, self._rows),) = policies.items()
        self._valid = self._rows[Columns.LOSS_MASK].nonzero().squeeze(1)
        self._size = min(size, len(self._valid))
        self._total = total or epochs * len(self._valid) // self._size

    def __iter__(self) -> Iterator[MultiAgentBatch]:
        columns = {name: column for name, column in self._rows.items() if name not in NOT_FOR_THE_LOSS}
        epochs = -(-self._total * self._size // len(self._valid))
        order = torch.cat([self._valid[torch.randperm(len(self._valid))] for _ in range(epochs)])
        for rows in islice(torch.split(order, self._size), self._total):
            chosen = _SampleBatch({name: column.index_select(0, rows) for name, column in columns.items()})
            yield MultiAgentBatch({self._module: chosen}, len(rows))
