from contextlib import nullcontext
from types import SimpleNamespace
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
from carl.training.rllib.algorithms import _tuned, apply
from carl.training.rllib.control import iterate
from carl.training.rllib.divergence import check_weights, require_finite
from carl.training.rllib.learner import Minibatches, PPOLearner
from carl.training.rllib.replay import SACLearner

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
FOUR = gym.spaces.Box(-1, 1, (4,), np.float32)
POLICY = "default_policy"


def learner(actions: gym.Space[Any], **settings: Any) -> PPOLearner:
    """Of networks that look at four numbers; the same for the same settings."""
    torch.manual_seed(0)
    config = apply(_tuned("ppo"), settings)
    config = config.learners(num_learners=0).environment(observation_space=FOUR, action_space=actions)
    built = config.build_learner(spaces={POLICY: (FOUR, actions)})
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


NOT_FINITE = [float("nan"), float("inf")]


def sac_learner() -> SACLearner:
    config = _tuned("sac").learners(num_learners=0).environment(observation_space=FOUR, action_space=CONTINUOUS)
    return config.build_learner(spaces={POLICY: (FOUR, CONTINUOUS)})


def sac_rows(number: int = 64) -> dict[str, Any]:
    data = rows(CONTINUOUS, number)[POLICY]
    columns = {Columns.OBS: data[Columns.OBS], Columns.NEXT_OBS: data[Columns.OBS] + 0.1}
    columns |= {Columns.ACTIONS: data[Columns.ACTIONS].clamp(-1, 1), Columns.REWARDS: torch.ones(number)}
    columns |= {Columns.TERMINATEDS: torch.zeros(number, dtype=torch.bool), Columns.TRUNCATEDS: torch.zeros(number)}
    return {POLICY: SampleBatch({**columns, "weights": torch.ones(number), "n_step": torch.ones(number)})}


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("column", [Columns.OBS, Postprocessing.VALUE_TARGETS])
def test_a_number_that_is_none_in_a_batch_ends_the_training_and_is_placed(column, value):
    data = rows(DISCRETE)
    data[POLICY][column][5] = value
    data[POLICY][Columns.LOSS_MASK] = torch.ones(64, dtype=torch.bool)
    with pytest.raises(TaskError, match=f"first seen in the {column} of a training batch: look for a NaN"):
        learner(DISCRETE).update(batch=MultiAgentBatch(data, 64), minibatch_size=16, num_epochs=1)


@pytest.mark.parametrize("column", [Columns.OBS, Columns.REWARDS, "weights"])
def test_sac_learns_from_no_number_that_is_none(column):
    made, data = sac_learner(), sac_rows()
    made._update(data)
    weights = [parameter.detach().clone() for parameter in made._params.values()]
    data[POLICY][column][5] = float("nan")
    with pytest.raises(TaskError, match=f"first seen in the {column} of a training batch"):
        made._update(data)
    assert all(torch.equal(*pair) for pair in zip(weights, made._params.values(), strict=True))


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_gradient_that_is_no_number_ends_the_training_before_the_step(value, threads):
    made, data = learner(DISCRETE, training={"use_kl_loss": threads == 1}), rows(DISCRETE)
    assert side_by_side(made) is (threads == 2)
    parameter = next(iter(made._params.values()))
    before = parameter.detach().clone()
    parameter.register_hook(lambda gradient: gradient * value)
    with pytest.raises(TaskError, match=r"first seen in the gradient of encoder\..*: the training diverged"):
        made._update(data)
    assert torch.equal(parameter, before)


def test_weights_that_are_not_finite_are_named_and_no_checkpoint_is_written():
    made = learner(DISCRETE)
    group = SimpleNamespace(get_weights=lambda: made.get_state(components="rl_module")["rl_module"])
    check_weights(SimpleNamespace(learner_group=group))
    with torch.no_grad():
        next(iter(made._params.values()))[0] = float("inf")
    with pytest.raises(TaskError, match=r"weights 'encoder\..*' of default_policy are not finite"):
        check_weights(SimpleNamespace(learner_group=group))
    with pytest.raises(TaskError, match="diverged"):
        made._update(rows(DISCRETE))


@pytest.mark.parametrize("elsewhere", [1.0, *NOT_FINITE])
def test_all_learners_stop_together_and_say_the_same(monkeypatch, elsewhere):
    """The others would wait for the gradients of the one that stops."""

    def gathered(found: list[str | None], mine: str | None) -> None:
        found[:] = [mine, "the obs of a training batch"]

    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.add_(elsewhere))
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gathered)
    stopped = pytest.raises(TaskError, match="first seen in the obs of a training batch: look")
    with nullcontext() if elsewhere == 1.0 else stopped:
        require_finite([torch.tensor(1.0)], lambda: ["the loss of agent"], "look", together=True)
    require_finite([torch.tensor(1.0)], lambda: ["the loss of agent"], "look")


def test_what_a_learners_process_says_in_our_words_is_said_without_its_traceback():
    class Remote:
        env_runner_group = SimpleNamespace(foreach_env_runner=lambda *args, **kwargs: [])

        def train(self):
            raise RayTaskError("update", "a traceback", TaskError("look for NaN")).as_instanceof_cause()

    with pytest.raises(TaskError, match=r"^look for NaN$"):
        iterate(Remote())
