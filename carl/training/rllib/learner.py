"""RLlib's PPO learner, faster for small networks on CPUs."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import torch
from ray.rllib.algorithms.ppo.ppo import (
    LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY,
    LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY,
)
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO
from ray.rllib.utils.torch_utils import explained_variance

from carl.training.rllib.divergence import FiniteLearner, diverging

_SampleBatch: Any = SampleBatch  # RLlib leaves these untyped
_explained_variance: Any = explained_variance
Figures = dict[str, torch.Tensor]
NOT_FOR_THE_LOSS = (Columns.LOSS_MASK, Columns.TERMINATEDS, Columns.TRUNCATEDS, WEIGHTS_SEQ_NO)


class PPOLearner(FiniteLearner, PPOTorchLearner):
    """The same updates: two networks learn in two threads, Adam steps all parameters in one kernel, and minibatches are
    gathered by index.
    """

    _last: tuple[str, Figures, torch.Tensor, torch.Tensor] | None = None

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Register Adam, as RLlib does, but fused: all parameters in one kernel."""
        parameters = self.get_parameters(self.module[module_id])
        optimizer = torch.optim.Adam(parameters, fused=True)
        self.register_optimizer(
            module_id=module_id, optimizer=optimizer, params=parameters, lr_or_lr_schedule=config.lr
        )

    def _create_iterator_if_necessary(self, *, training_data: Any, **asked: Any) -> Iterable[MultiAgentBatch]:
        batch: Any = self._make_batch_if_necessary(training_data)  # type: ignore[no-untyped-call]
        self._check_batch(batch.policy_batches)
        return Minibatches(batch, asked["minibatch_size"], asked["num_epochs"], asked.get("num_total_minibatches", 0))

    def _update(self, batch: Any, **kwargs: Any) -> Any:
        with diverging():  # the whole batch was looked at before
            return PPOTorchLearner._update(self, batch, **kwargs)

    def build(self) -> None:
        """Build RLlib's learner; if policy and value share nothing, updates run in two threads."""
        super().build()
        if self._has_two_networks():
            self._critic = ThreadPoolExecutor(1, "critic", initializer=lambda: torch.set_num_threads(1))
            self._possibly_compiled_update = self._update_side_by_side

    def _has_two_networks(self) -> bool:
        """Whether policy and value share nothing, learn on the driver's CPUs, and have no losses beside theirs."""
        config: Any = self.config
        modules: Any = self.module
        device: Any = self._device
        return (
            all(getattr(getattr(module, "encoder", None), "critic_encoder", None) for module in modules.values())
            and device.type == "cpu"
            and not config.num_learners  # a learner's own process has one CPU
            and config.use_critic
            and not (config.use_kl_loss or config.torch_compile_learner or config._torch_grad_scaler_class)
        )

    def _update_side_by_side(self, batch: dict[str, Any]) -> tuple[Any, Any, Any]:
        """RLlib's ``_uncompiled_update`` of such a module, with its arguments and results."""
        ((name, rows),) = batch.items()
        for optimizer in self._optimizer_parameters:
            optimizer.zero_grad(set_to_none=True)
        critic = self._critic.submit(self._learn_values, name, rows)
        policy_loss, figures = self._learn_policy(name, rows)
        value_loss, values = critic.result()
        gradients = {key: parameter.grad for key, parameter in self._params.items()}
        self._check({"the policy": policy_loss, "the values": value_loss}, gradients)
        self._last = name, figures, values, rows[Postprocessing.VALUE_TARGETS]
        self.apply_gradients(self.postprocess_gradients(gradients))
        return {}, {name: policy_loss + value_loss}, {}

    def _learn_policy(self, name: str, rows: Any) -> tuple[torch.Tensor, Figures]:
        """Gradients of the clipped surrogate objective and the entropy bonus (Schulman et al. 2017, equation 9)."""
        config, module = self._parts(name)
        logits = module.pi(module.encoder.actor_encoder(rows)[ENCODER_OUT])
        actions = module.get_train_action_dist_cls().from_logits(logits)
        ratio = torch.exp(actions.logp(rows[Columns.ACTIONS]) - rows[Columns.ACTION_LOGP])
        clipped = torch.clamp(ratio, 1 - config.clip_param, 1 + config.clip_param)
        advantages = rows[Postprocessing.ADVANTAGES]
        surrogate, entropy = -torch.min(advantages * ratio, advantages * clipped).mean(), actions.entropy().mean()
        loss = surrogate - self.entropy_coeff_schedulers_per_module[name].get_current_value() * entropy
        loss.backward()
        return loss.detach(), {POLICY_LOSS_KEY: surrogate.detach(), ENTROPY_KEY: entropy.detach()}

    def _learn_values(self, name: str, rows: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of the values' squared error; returns the loss and the values."""
        config, module = self._parts(name)
        values = module.compute_values(rows)
        errors = torch.square(values - rows[Postprocessing.VALUE_TARGETS])
        loss = config.vf_loss_coeff * torch.clamp(errors, 0, config.vf_clip_param).mean()
        loss.backward()
        return loss.detach(), values.detach()

    def after_gradient_based_update(self, **kwargs: Any) -> None:
        """Log the figures of the last minibatch, as RLlib does, but without those of all before it."""
        if self._last:
            name, figures, values, targets = self._last
            config, _ = self._parts(name)
            errors = torch.square(values - targets)
            figures |= {
                VF_LOSS_KEY: torch.clamp(errors, 0, config.vf_clip_param).mean(),
                LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY: errors.mean(),
                LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY: _explained_variance(targets, values),
            }
            self.metrics.log_dict(figures, key=name, window=1)
        super().after_gradient_based_update(**kwargs)

    def _parts(self, name: str) -> tuple[Any, Any]:
        """The configuration of a module, and the module."""
        config: Any = self.config
        return config.get_config_for_module(name), self.module[name].unwrapped()


class Minibatches:
    """The valid rows of ``batch``, shuffled ``epochs`` times and cut into minibatches of ``size``; what is left over is
    dropped. RLlib's own iterator slices, joins and wraps columns, and keeps the rows that only bootstrap values.

    Without a ``size`` all of them are one. With ``total`` other than 0 there are so many: learners beside this one wait
    for each.
    """

    def __init__(self, batch: MultiAgentBatch, size: int | None, epochs: int, total: int = 0) -> None:
        policies: Any = batch.policy_batches
        ((self._module, self._rows),) = policies.items()
        self._valid = self._rows[Columns.LOSS_MASK].nonzero().squeeze(1)
        self._size = min(size or len(self._valid), len(self._valid))
        self._total = total or epochs * len(self._valid) // self._size

    def __iter__(self) -> Iterator[MultiAgentBatch]:
        columns = {name: column for name, column in self._rows.items() if name not in NOT_FOR_THE_LOSS}
        epochs = -(-self._total * self._size // len(self._valid))
        order = torch.cat([self._valid[torch.randperm(len(self._valid))] for _ in range(epochs)])
        for rows in islice(torch.split(order, self._size), self._total):
            chosen = _SampleBatch({name: column.index_select(0, rows) for name, column in columns.items()})
            yield MultiAgentBatch({self._module: chosen}, len(rows))
