"""The episodes of a run: every kind, as many as the settings ask for, recorded once and digested."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from carl.episodes.missing import Missing
from carl.episodes.record import Recorder, by, record
from carl.episodes.trajectory import Trajectory, TrajectoryStore
from carl.errors import TaskError
from carl.methods.code import CodeConfig
from carl.methods.method import Work
from carl.methods.recorded import check_sound, dealt, made, recorded
from carl.task import Task
from carl.tasks import get_task
from carl.verification import Evidence

DOOR = get_task("DoorKey-5x5")
OTHERS = {Evidence.RESTING, Evidence.MIXED, Evidence.CUT}


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)


def work(directory: Path, task: Task = DOOR, **collect: object) -> Work[CodeConfig]:
    counts = {"experts": 6, "randoms": 5} | collect
    config = CodeConfig.model_validate(
        {"task": task.name, "collect": counts, "verify": {"min_experts": 2, "min_randoms": 1}}
    )
    return Work(task, config, directory)


def episodes(what: Work[CodeConfig], held_out: int = 0):
    return recorded(what, what.config.collect, 2, held_out)


def test_every_kind_is_recorded_once_and_held_out_ones_are_others(tmp_path: Path) -> None:
    what = work(tmp_path)
    assert made(tmp_path, what.config) is None
    found = episodes(what)
    assert {kind: len(list(shown)) for kind, shown in found.items()} == dict.fromkeys(found, 6) | {Evidence.RANDOMS: 5}
    assert found.keys() == {Evidence.EXPERTS, Evidence.RANDOMS, *OTHERS}
    assert {kind: {one.role for one in shown} for kind, shown in found.items()} == {
        kind: {kind.value} for kind in found
    }
    digest, stamps = made(tmp_path, what.config), [path.stat().st_mtime_ns for path in tmp_path.rglob("manifest.json")]
    again = episodes(what)
    assert [path.stat().st_mtime_ns for path in tmp_path.rglob("manifest.json")] == stamps
    assert digest == made(tmp_path, what.config) is not None
    held_out = episodes(what, 1)
    for kind, shown in again.items():
        assert not {one.seed for one in shown} & {one.seed for one in held_out[kind]}, kind
    assert (tmp_path / "trajectories/held-out-1-mixed/manifest.json").exists()
    check_sound(DOOR, found, what.config.verify)


def test_other_kinds_can_be_left_out(tmp_path: Path) -> None:
    what = work(tmp_path, others=0)
    assert episodes(what).keys() == {Evidence.EXPERTS, Evidence.RANDOMS}
    assert made(tmp_path, what.config) is not None


def test_how_many_episodes_there_are_follows_from_the_bound(tmp_path: Path) -> None:
    counts = CodeConfig(task=DOOR.name).collect
    assert (counts.expert_episodes, counts.random_episodes, counts.other_episodes) == (59, 59, 59)
    strict = work(tmp_path, experts=None, randoms=None, excludes=0.01).config.collect
    assert (strict.expert_episodes, strict.random_episodes, strict.other_episodes) == (299, 299, 299)


def test_demonstrations_are_cut_where_their_actions_give_their_frames(tmp_path: Path) -> None:
    task = replace(DOOR, demonstrations=str(tmp_path / "mine"))
    with Recorder(task, tmp_path / "mine") as recorder:
        record(recorder, by(DOOR.expert), 12, seed=3)
    found = episodes(work(tmp_path / "run", replace(task, expert=None)))
    assert len(list(found[Evidence.CUT])) == 6
    assert isinstance(found[Evidence.MIXED], Missing)
    shown = TrajectoryStore(tmp_path / "mine").read()
    TrajectoryStore(tmp_path / "mine").write([replace(one, seed=one.seed + 1) for one in shown], replace=True)
    found = episodes(work(tmp_path / "other", replace(task, expert=None)))
    assert isinstance(found[Evidence.CUT], Missing)
    assert "does not give its frames" in found[Evidence.CUT].why


def test_episodes_that_cannot_judge_end_the_run_with_their_seeds(tmp_path: Path) -> None:
    found = episodes(what := work(tmp_path, others=0))
    experts = list(found[Evidence.EXPERTS])
    blank = replace(experts[2], frames=np.zeros_like(experts[2].frames))
    with pytest.raises(TaskError, match=rf"task 'DoorKey-5x5': all frames are alike .* of seed {blank.seed}:"):
        check_sound(DOOR, {**found, Evidence.EXPERTS: [*experts[:2], blank, *experts[3:]]}, what.config.verify)


def test_an_episode_beside_is_searched_with_or_judged_by_in_one_set() -> None:
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    seeds = [9, 4, 7, 1, 4, 3, 6, 5, 2]
    films = [Trajectory(frames, np.zeros(1), np.zeros(1), False, True, False, seed, "policy") for seed in seeds]
    sets = [[one.seed for one in dealt(films, number)] for number in range(5)]
    assert sets == [[9, 7, 3, 5], [4, 4, 6], [1], [2], []]
    assert [one.seed for one in dealt(films[:7], 0)] == [9, 7, 3], "further ones change nothing about those before"
