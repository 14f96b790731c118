"""A NaN or an infinity ends a training where it is first seen, and no checkpoint holds one."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from carl.errors import TaskError

IN_THE_TASK = "look for a NaN or an infinity in what the task observes or pays"

DIVERGED = "the training diverged: lower the learning rate (train.rllib.training), or let the task pay less"


class FiniteLearner:
    """To be inherited before one of RLlib's Torch learners, whose updates stay as they are.

    Raises TaskError where a minibatch, the loss or a gradient holds a number that is not finite, before the optimizer
    steps. RLlib (Ray 2.60.0) would go on: with ``torch_skip_nan_gradients`` it steps with such a gradient, and without
    it sets a NaN to 0 and an infinity to 3.4e38. The latter's square is an infinity in Adam's state, and Adam moves
    those weights no more.
    """

    def _update(self, batch: Mapping[str, Any], **kwargs: Any) -> Any:
        self._check_batch(batch)
        with diverging():
            return super()._update(batch, **kwargs)  # type: ignore[misc]  # RLlib's

    def _check_batch(self, batch: Mapping[str, Any]) -> None:
        """Raise TaskError if a column of a module's rows is not finite."""
        columns = {
            name: column
            for rows in batch.values()
            for name, column in rows.items()
            if torch.is_tensor(column) and column.is_floating_point()
        }
        names = [f"the {name} of a training batch" for name in columns]
        require_finite(list(columns.values()), lambda: names, IN_THE_TASK, together=self._has_others)

    def compute_gradients(self, loss_per_module: dict[str, Any], **kwargs: Any) -> Any:
        """RLlib's gradients; raises TaskError if they or the loss are not finite."""
        gradients = super().compute_gradients(loss_per_module, **kwargs)  # type: ignore[misc]  # RLlib's
        self._check(loss_per_module, gradients)
        return gradients

    def _check(self, losses: Mapping[str, torch.Tensor], gradients: Mapping[Any, torch.Tensor | None]) -> None:
        """Raise TaskError if one of ``losses``, or of the ``gradients`` by parameter, is not finite."""
        rllib: Any = self
        # A scaler looks for infinities itself, and takes smaller steps.
        there = {} if rllib._grad_scalers else {at: one for at, one in gradients.items() if one is not None}

        def names() -> list[str]:
            of_losses = [f"the loss of {name}" for name in losses]
            return of_losses + [f"the gradient of {self._names.get(at, 'a scalar')}" for at in there]

        require_finite([*losses.values(), *there.values()], names, DIVERGED, together=self._has_others)

    @property
    def _has_others(self) -> bool:
        """Whether other learners learn beside this one: all wait for one another in each update."""
        rllib: Any = self
        return bool(rllib.distributed)

    @property
    def _names(self) -> dict[Any, str]:
        """Names of the networks' parameters, by RLlib's references to them."""
        rllib: Any = self
        modules = [module.unwrapped() for module in rllib.module.values()]
        return {rllib.get_param_ref(one): name for module in modules for name, one in module.named_parameters()}


def require_finite(
    tensors: Sequence[torch.Tensor], names: Callable[[], Sequence[str]], advice: str, *, together: bool = False
) -> None:
    """Raise TaskError, which names the first by ``names``, if one of ``tensors`` holds a number that is not finite.

    ``together`` includes all learners: all of them raise the same if one has to, since the others would wait for the
    gradients of the one that raises.
    """
    with torch.no_grad():  # sums take a third of the time that a look at each number does
        total = torch.stack([tensor.sum() for tensor in tensors]).sum()
    if together:
        torch.distributed.all_reduce(total)
    if math.isfinite(total.item()):
        return
    found = (name for name, tensor in zip(names(), tensors, strict=True) if not torch.isfinite(tensor).all())
    first = next(found, None)
    if together:
        everyones: list[str | None] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(everyones, first)
        first = next(filter(None, everyones), None)
    if first is not None:  # else the numbers are finite, and only their sum is not
        raise TaskError(f"a NaN or an infinity ends the training, first seen in {first}: {advice}")


@contextmanager
def diverging() -> Iterator[None]:
    """Turn into a TaskError that torch refuses to draw actions from such numbers; also for decorating a function."""
    try:
        yield
    except ValueError as error:
        if "to satisfy the constraint" not in str(error):
            raise
        raise TaskError(f"the policy's outputs for finite observations are not finite; {DIVERGED}") from error


def check_weights(algorithm: Any) -> None:
    """Raise TaskError if a weight that a checkpoint of ``algorithm`` would hold is not finite."""
    for module, weights in algorithm.learner_group.get_weights().items():
        for name, values in weights.items():
            if isinstance(values, np.ndarray) and values.dtype.kind == "f" and not np.isfinite(values).all():
                raise TaskError(
                    f"the weights {name!r} of {module} are not finite, so no checkpoint is written and the one before "
                    f"stays; {DIVERGED}"
                )
