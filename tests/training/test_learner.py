import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from carl.training.learner import Minibatches

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
    assert [len(rows) for rows in chosen(Minibatches(batch(), size=512, epochs=2))] == [10, 10]


def test_a_learner_beside_others_makes_as_many_as_it_is_told():
    assert len(chosen(Minibatches(batch(), size=4, epochs=1, total=9))) == 9
