"""What the README shows runs; links and names of modules in the pages are right."""

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
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")), ROOT / "carl/nano/README.md"]
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


def _anchors(page: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for path, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text()):
        target = (page.parent / path) if path else page
        assert target.exists(), f"{page.name} links to {path}"
        assert not anchor or anchor in _anchors(target), f"{page.name} links to {path}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_modules_that_pages_name_exist(page: Path) -> None:
    for name in re.findall(r"`([a-z_0-9]+(?:/[a-z_0-9]+)*/[a-z_0-9]+\.(?:py|yaml))`", page.read_text()):
        assert (ROOT / name).exists() or (ROOT / "carl" / name).exists(), name
