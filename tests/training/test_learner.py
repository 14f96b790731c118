from contextlib import nullcontext
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.exceptions import RayTaskError
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from carl.errors import TaskError
from carl.training.algorithms import _tuned, tell
from carl.training.learner import Minibatches, PPOLearner, check_finite
from carl.training.train import trained

pytestmark = pytest.mark.usefixtures("seeded_torch")
BOOTSTRAPS = [3, 7]


@pytest.fixture
def seeded_torch():
    torch.manual_seed(0)


def batch(rows: int = 12) -> MultiAgentBatch:
    mask = torch.ones(rows, dtype=torch.bool)
    mask[BOOTSTRAPS] = False
    columns = {Columns.OBS: torch.arange(rows).float()[:, None], Columns.ACTIONS: torch.arange(rows)}
    return MultiAgentBatch({"agent": SampleBatch({**columns, Columns.LOSS_MASK: mask})}, rows)


def chosen(minibatches: Minibatches) -> list[list[int]]:
    return [minibatch.policy_batches["agent"][Columns.ACTIONS].tolist() for minibatch in minibatches]


def test_an_epoch_sees_every_valid_row_once_and_no_bootstrap():
    first, second = chosen(Minibatches(batch(), size=5, epochs=1))
    assert sorted(first + second) == [row for row in range(12) if row not in BOOTSTRAPS]
    assert first + second != sorted(first + second)


def test_columns_keep_together():
    for minibatch in Minibatches(batch(), size=4, epochs=2):
        rows = minibatch.policy_batches["agent"]
        assert torch.equal(rows[Columns.OBS][:, 0], rows[Columns.ACTIONS].float())


def test_minibatches_are_all_of_the_size_and_cross_epochs():
    found = chosen(Minibatches(batch(), size=4, epochs=3))
    assert [len(rows) for rows in found] == [4] * 7  # 30 rows, 2 of them left over
    flat = [row for rows in found for row in rows]
    assert sorted(flat[:10]) == sorted(flat[10:20])


def test_a_batch_below_the_size_is_a_minibatch():
    for size in (512, None):
        assert [len(rows) for rows in chosen(Minibatches(batch(), size=size, epochs=2))] == [10, 10]


def test_a_learner_beside_others_makes_as_many_as_it_is_told():
    assert len(chosen(Minibatches(batch(), size=4, epochs=1, total=9))) == 9


DISCRETE, CONTINUOUS = gym.spaces.Discrete(3), gym.spaces.Box(-1, 1, (2,), np.float32)
POLICY = "default_policy"


def learner(actions: gym.Space[Any], **settings: Any) -> PPOLearner:
    """Of networks that look at four numbers; the same for the same settings."""
    torch.manual_seed(0)
    config = tell(_tuned("ppo"), settings)
    observations = gym.spaces.Box(-1, 1, (4,), np.float32)
    config = config.learners(num_learners=0).environment(observation_space=observations, action_space=actions)
    built = config.build_learner(spaces={POLICY: (observations, actions)})
    assert isinstance(built, PPOLearner)
    return built


def rows(actions: gym.Space[Any], number: int = 64) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(1)
    normal = lambda *shape: torch.randn(*shape, generator=draw)  # noqa: E731
    chosen = normal(number, 2) if actions is CONTINUOUS else torch.randint(3, (number,), generator=draw)
    inputs = normal(number, 4 if actions is CONTINUOUS else 3)
    return {
        POLICY: SampleBatch(
            {
                Columns.OBS: normal(number, 4),
                Columns.ACTIONS: chosen,
                Columns.ACTION_LOGP: -1.0 + 0.3 * normal(number),
                Columns.ACTION_DIST_INPUTS: inputs,
                Postprocessing.ADVANTAGES: normal(number),
                Postprocessing.VALUE_TARGETS: 3 * normal(number),
            }
        )
    }


@pytest.mark.parametrize("actions", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
@pytest.mark.parametrize("training", [{}, {"vf_clip_param": 4.0, "vf_loss_coeff": 1.5, "entropy_coeff": 0.3}])
def test_two_threads_make_the_updates_that_rllib_makes(actions, training):
    ours, theirs, data = learner(actions, training=training), learner(actions, training=training), rows(actions)
    before = [parameter.detach().clone() for parameter in theirs._params.values()]
    for _ in range(3):
        _, our_loss, _ = ours._update(data)
        _, their_loss, _ = PPOTorchLearner._uncompiled_update(theirs, data)
        torch.testing.assert_close(our_loss[POLICY], their_loss[POLICY])
    for mine, other, old in zip(ours._params.values(), theirs._params.values(), before, strict=True):
        torch.testing.assert_close(mine, other)
        assert not torch.equal(mine, old)
    for each in (ours, theirs):
        each.after_gradient_based_update(timesteps={})
    told, known = (each.metrics.reduce()[POLICY] for each in (ours, theirs))
    for key, value in told.items():
        assert float(value) == pytest.approx(float(known[key]), rel=1e-4, abs=1e-6), key


def side_by_side(of: PPOLearner) -> bool:
    return of._possibly_compiled_update == of._update_side_by_side


@pytest.mark.parametrize(
    "settings",
    [{"training": {"use_kl_loss": True}}, {"rl_module": {"model_config": {"vf_share_layers": True}}}],
    ids=["KL loss", "one network"],
)
def test_what_is_not_two_networks_is_left_to_rllib(settings):
    assert not side_by_side(learner(DISCRETE, **settings))
    assert side_by_side(learner(DISCRETE))


def test_a_value_that_is_no_number_ends_the_training():
    data = rows(DISCRETE)
    data[POLICY][Postprocessing.VALUE_TARGETS][5] = float("nan")
    with pytest.raises(TaskError, match="not a number"):
        learner(DISCRETE)._update(data)


@pytest.mark.parametrize("other", [0.5, float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_all_learners(monkeypatch, other):
    """The others would wait for the gradients of the one that stops."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.add_(other))
    with nullcontext() if other == 0.5 else pytest.raises(TaskError, match="look for NaN"):
        check_finite({"agent": torch.tensor(1.0, requires_grad=True)}, together=True)
    check_finite({"agent": torch.tensor(1.0)})


def test_what_a_learners_process_says_in_our_words_is_said_without_its_traceback():
    class Remote:
        def train(self):
            raise RayTaskError("update", "a traceback", TaskError("look for NaN")).as_instanceof_cause()

    with pytest.raises(TaskError, match=r"^look for NaN$"):
        trained(Remote())
