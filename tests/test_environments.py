"""The tasks of docs/environments.md: the page shows what is tested, and each goes through all stages."""

import re
from functools import partial
from pathlib import Path

import pytest

from carl.methods.code import CodeConfig
from carl.runs.pipeline import Pipeline
from carl.task import Task
from docs import environments
from tests.fakes.scripted_vlm import Asked, scripted

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/environments.md").read_text()
TASKS = {name: found for name, found in vars(environments).items() if isinstance(found, Task)}

FEW = {
    "synthesis": {"samples": 1, "pairs": 1, "proposers": ["model"]},
    "collect": {"experts": 3, "randoms": 5, "others": 2},
    "verify": {
        "min_experts": 2,
        "min_randoms": 5,
        "max_random_completion": 0.5,
        # What an answer's sub-tasks are worth is not asked here: some are done a few frames early, or name places.
        "max_part": 1.0,
        "max_early": 1.0,
        "max_unsolved": 1.0,
        "max_undone": 1.0,
    },
    "evaluation": {"episodes": 1, "curve_episodes": 1},
}
ONE_ITERATION = {
    "ppo": {"training": {"train_batch_size_per_learner": 64, "minibatch_size": 32, "num_epochs": 1}},
    "sac": {
        "training": {"num_steps_sampled_before_learning_starts": 50, "train_batch_size_per_learner": 16},
        "reporting": {"min_sample_timesteps_per_iteration": 64},
    },
}


def code(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def test_the_page_shows_the_module_that_is_tested() -> None:
    shown = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE))
    assert code(shown) == code((ROOT / "docs/environments.py").read_text())


def answer(task: Task, asked: Asked) -> list[str]:
    """What stands in tests/programs/answers: the plan, and then each sub-task's program."""
    plan, *programs = (ROOT / f"tests/programs/answers/{task.name}.md").read_text().split("\n---\n")
    number = re.search(r"write the program for sub-task (\d+)", asked.task)
    return [programs[int(number[1]) - 1] if number else plan] * asked.n


@pytest.mark.usefixtures("ray_cluster", "one_thread")
@pytest.mark.parametrize("name", TASKS)
def test_every_task_of_the_page_goes_through_all_stages(name: str, tmp_path: Path) -> None:
    task = TASKS[name]
    with scripted(partial(answer, task)) as vlm:
        settings = {
            "task": f"docs.environments:{name}",
            "run_dir": tmp_path,
            "vlm": {"model": "scripted", "base_url": vlm.base_url, "max_retries": 0},
            "train": {
                "env_steps": 64,
                "env_runners": 0,
                "envs_per_runner": 2,
                "baselines": False,
                "rllib": ONE_ITERATION[task.defaults.get("train.algorithm", "ppo")],
            },
        }
        result = Pipeline(CodeConfig.model_validate(FEW | settings)).run()
    assert result is not None
    assert set(result["seconds"]) == {"collect", "synthesize", "verify", "train", "evaluate"}
    assert result["env_steps"] >= 64
    assert result["evaluation"]["abstains"] == 0
    assert task.name in (tmp_path / "report.html").read_text()
