"""The training loop in docs/cleanrl.md learns from a code reward."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv

from carl.program import RewardProgram, SubTask
from carl.rewards.vector import PaidVectorEnv
from tests.fakes.corridor import CORRIDOR, Corridor, Furthest

LOOP, USE = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs/cleanrl.md").read_text(), re.DOTALL)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _own_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


def loop() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(LOOP, names)
    return names


def test_it_learns_the_corridor() -> None:
    env = PaidVectorEnv(SyncVectorEnv([lambda: Corridor(6, 20)] * 8), CORRIDOR, Furthest(length=6))
    solved = loop()["ppo"](env, 4_096)
    assert np.mean(solved[:20]) < 0.7
    assert np.mean(solved[-20:]) > 0.9


def test_steps_that_only_reset_do_not_count_and_a_truncated_episode_goes_on_in_its_value() -> None:
    """Worked by hand: episodes of two steps that truncate, each step worth 1/4, and a value of 1 everywhere."""
    names = loop()
    agent = names["Agent"](13, 2)
    agent.value = lambda observations: torch.ones(observations.shape[:-1])
    env = PaidVectorEnv(SyncVectorEnv([lambda: Corridor(4, 2)]), CORRIDOR, Furthest())
    agent.actor[-1].bias.data = torch.tensor([-99.0, 99.0])
    batch, *_ = names["sample"](env, agent, env.reset(seed=0)[0], np.zeros(1, dtype=bool), 6)
    assert batch[-1].flatten().tolist() == [1, 1, 0, 1, 1, 0]
    assert batch[3].flatten().tolist() == [0.25, 0.25, 0, 0.25, 0.25, 0]
    advantages, returns = names["advantages_of"](agent, batch, gamma=0.5, lam=1.0)
    assert advantages.flatten()[[0, 1, 3, 4]].tolist() == [-0.375, -0.25, -0.375, -0.25]
    assert torch.equal(returns, advantages + 1)


def test_it_trains_on_a_program_as_shown(tmp_path: Path, capsys: Any) -> None:
    source = "def progress(frame, initial):\n    return float(frame[0, 0, 0] != initial[0, 0, 0])\n"
    (tmp_path / "program.json").write_text(RewardProgram(subtasks=(SubTask(name="move", code=source),)).to_json())
    assert "100_000" in USE
    shown = USE.replace("runs/DoorKey-5x5-0/program.json", str(tmp_path / "program.json")).replace("100_000", "4_096")
    exec(shown, names := loop())
    assert re.fullmatch(r"solved [01]\.\d\d of the last 100 episodes\n", capsys.readouterr().out)
    assert len(names["solved"]) > 0
