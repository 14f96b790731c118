"""What the README shows runs."""

import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from carl.episodes.trajectory import TrajectoryStore
from carl.nano import programs
from carl.program import RewardProgram, SubTask

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_custom_task_is_the_one_that_is_tested() -> None:
    tested = (ROOT / "tests/test_task.py").read_text().split("# README: begin\n")[1].split("# README: end")[0]
    assert BLOCKS[0].strip() == tested.strip()


@pytest.mark.usefixtures("one_thread")
def test_a_loop_of_one_s_own_records_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(BLOCKS[0], names)

    def play(env: gym.Env) -> None:
        for seed in (1, 2):
            observation, _ = env.reset(seed=seed)
            act, over = names["expert"](env), False
            while not over:
                observation, _, terminated, truncated, _ = env.step(act(observation))
                over = terminated or truncated

    exec(BLOCKS[1], names | {"play": play})
    shown = TrajectoryStore("demonstrations/frozen-lake")
    assert [(one.seed, one.success, len(one)) for one in shown] == [(1, True, 6), (2, True, 6)]


def test_stable_baselines_trains_on_the_reward_as_shown(tmp_path: Path) -> None:
    program = RewardProgram(
        subtasks=(
            SubTask(name="pick up the key", code=programs.PICK_UP_KEY),
            SubTask(name="open the door", code=programs.OPEN_DOOR),
            SubTask(name="reach the goal", code=programs.REACH_GOAL),
        )
    )
    (tmp_path / "program.json").write_text(program.to_json())
    shown = BLOCKS[2].replace("runs/DoorKey-5x5-0/program.json", str(tmp_path / "program.json"))
    assert "100_000" in shown
    names: dict[str, object] = {}
    try:
        exec(shown.replace("100_000", "4_096"), names)
        model = names["model"]
        assert model.num_timesteps == 4_096
        assert model.rollout_buffer.rewards.sum() > 0, "random play picks up a key now and then, and is paid for it"
        assert model.rollout_buffer.rewards.max() <= program.max_return
    finally:
        names["env"].close()


def test_every_file_that_the_readme_links_to_is_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert "docs/report.png" in links
    assert [link for link in links if not (ROOT / link.partition("#")[0]).exists()] == []
