"""The watch over a training: what it films, what it raises, and how a program that misleads loses its weight."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carl.artefacts import WATCH, WATCHED
from carl.config import EvaluationConfig, TrainConfig, VerifyConfig, WatchConfig
from carl.episodes.trajectory import Trajectory, TrajectoryStore
from carl.program import RewardProgram, SubTask
from carl.provenance import Approval, Provenance
from carl.rewards.latch import PROGRESS
from carl.rewards.mix import Mix
from carl.rewards.program import ProgramReward
from carl.rewards.weighted import Weighted
from carl.training.answers import Watching
from carl.training.evaluation import Evaluator, Outcome
from carl.training.final import examine
from carl.training.teacher import Anew, Iteration
from carl.training.train import train
from carl.training.training import Training
from carl.training.watch import Watch
from carl.training.watched import MAX_REPAIRS, sentences, summed
from tests.fakes.corridor import CORRIDOR

CODE = "def progress(frame, initial):\n    return float(frame[0, 0, 1] >= 3)\n"
TIMER = ProgramReward(RewardProgram(subtasks=(SubTask(name="go", code=CODE),)))
"""Done at the third step of an episode of the corridor, wherever that is."""

SOUND = ProgramReward(RewardProgram(subtasks=(SubTask(name="go", code=CODE.replace("1] >= 3", "0] >= 4")),)))
"""Done at the end of the corridor."""


def watching(folder: Path, **settings: Any) -> Watch:
    config = WatchConfig(**{"every": 4, **settings})
    return Watch(Watching(folder, 10_000, 0.0, longest=5, settings=config, verify=VerifyConfig()))


def episode(seed: int, success: bool = False, steps: int = 20) -> Trajectory:
    """One that succeeds does so as the timer is done."""
    steps = 3 if success else steps
    frames = np.zeros((steps + 1, 8, 8, 3), np.uint8)
    frames[:, 0, 0, 1] = np.arange(steps + 1)
    actions, rewards = np.zeros(steps, np.int64), np.zeros(steps)
    return Trajectory(frames, actions, rewards, False, True, success, seed, "policy")


class Training_:
    """Iterations as a training would report them, and what was filmed of it."""

    def __init__(self, success: bool = False) -> None:
        self.number, self.success, self.source = 0, success, TIMER
        self.films: list[tuple[int, int | None]] = []

    def film(self, episodes: int, cut: int | None) -> list[Trajectory]:
        self.films.append((self.number, cut))
        return [episode(seed, self.success, min(20, cut or 20)) for seed in range(episodes)]

    def next(self, completed: int = 20, succeeded: int = 0, **more: Any) -> Iteration:
        self.number += 1
        return Iteration(
            number=self.number,
            env_steps=100 * self.number,
            sampled=100,
            ended=succeeded,
            succeeded=succeeded,
            means={},
            counts={"fired:1": completed},
            version=1,
            source_id=self.source.id,
            acknowledged={},
            refused={},
            source=self.source,
            film=self.film,
            **more,
        )


def looks(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / WATCH).read_text().splitlines()]


def test_a_suspicion_is_filmed_at_once_raised_and_answered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watch, run = watching(tmp_path / "code"), Training_()
    lowered = watch.after(run.next())
    assert lowered == Weighted(TIMER, 0.5)
    assert run.films == [(1, 20)]
    assert "code: the reward is not to be trusted, after 100 steps (1 % of the budget): 8 of 8 filmed" in caplog.text
    (look,) = looks(tmp_path / "code")
    assert (look["share"], look["lowered"], look["alarms"][0]["rule"]) == (0.01, 0.5, "completed_unsolved")
    assert len(TrajectoryStore(tmp_path / "code" / WATCHED).read()) == 8
    summary = summed([look])
    assert list(sentences("code", summary)) == [
        f"code: the reward is not to be trusted: {look['alarms'][0]['message']}",
        "code: the program pays 0.5 of its weight, and the environment's own reward the rest",
    ]


def test_a_sound_program_is_filmed_now_and_then_and_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watch, run = watching(tmp_path / "code"), Training_(success=True)
    assert not any(watch.after(run.next(20, 20)) for _ in range(9))
    assert [number for number, _ in run.films] == [1, 3, 7], "early, and then every fourth iteration"
    assert not caplog.records
    assert summed(looks(tmp_path / "code"))["standing"] == []
    nothing_completed = Training_()
    watch = watching(tmp_path / "other")
    assert not any(watch.after(nothing_completed.next(0, 0)) for _ in range(9))
    assert nothing_completed.films == [(1, 5), (3, 5), (7, 5)], "briefly, for what it is paid in part"
    off = watching(tmp_path / "off", every=0)
    assert off.after(run.next()) is None
    assert not (tmp_path / "off" / WATCH).exists()


def test_a_success_that_comes_after_completion_is_no_alarm_and_asked_about_less_and_less(tmp_path: Path) -> None:
    watch, run = watching(tmp_path / "code", every=100), Training_(success=True)
    assert not any(watch.after(run.next(20, 0)) for _ in range(20))
    assert [number for number, _ in run.films] == [1, 3, 7, 15]


def test_it_goes_on_after_a_stop_with_what_it_knew(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    watch, run = watching(folder, anneal=False), Training_(success=True)
    for _ in range(8):
        watch.after(run.next(20, 20))
    run.number = 5  # of the checkpoint
    watching(folder, anneal=False).after(run.next(20, 20))
    assert [look["iterations"] for look in looks(folder)] == [1, 3, 6]


def test_alarms_of_the_curve_are_raised_with_each_new_point(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watch, run = watching(tmp_path / "code", every=100, anneal=False), Training_(success=True)
    paid = [Outcome(False, 20, 1.0, 0, shown=(1.0,))] * 32
    for number in range(4):
        assert watch.after(run.next(0, 0, point=number, outcomes=paid if number else ())) is None
    assert [look["alarms"][0]["rule"] for look in looks(tmp_path / "code") if look["alarms"]] == ["paid_unsolved"]
    assert [number for number, _ in run.films] == [4], "for the frames"
    assert caplog.text.count("earns 100% of all that the program pays") == 1


def test_an_alarm_stands_until_the_gate_finds_nothing_in_a_film(tmp_path: Path) -> None:
    watch, run = watching(tmp_path / "code", anneal=False), Training_()
    watch.after(run.next())
    some = [episode(seed, success=seed > 0) for seed in range(8)]
    run.film = lambda *_: some
    for _ in range(2):
        watch.after(run.next(20, 20))
    assert looks(tmp_path / "code")[-1]["alarms"][0]["message"].startswith("1 of 8 filmed episodes")
    some[0] = episode(0, success=True)
    for _ in range(2):
        watch.after(run.next(20, 20))
    assert [len(look["alarms"]) for look in looks(tmp_path / "code")] == [1, 1, 0]


@pytest.mark.usefixtures("ray_cluster")
def test_a_timer_loses_its_weight_while_training_goes_on_and_a_stop_changes_nothing(tmp_path: Path) -> None:
    small = {"training": {"train_batch_size_per_learner": 512, "minibatch_size": 256}}
    config = TrainConfig(
        env_runners=0, envs_per_runner=8, env_steps=4_096, evaluate_every=2, checkpoint_every=1, rllib=small
    )
    run = Training(
        CORRIDOR,
        TIMER,
        Mix(shows=PROGRESS),
        3,
        tmp_path / "code",
        config,
        EvaluationConfig(curve_episodes=8, episodes=4),
    )
    trained = partial(train, evaluator=Evaluator(workers=0))
    trained(run, teacher=watching(run.directory, every=2))
    first = [look for look in looks(run.directory) if look["alarms"]]
    assert first[0]["iterations"] <= 3
    assert (first[0]["weight"], first[0]["lowered"]) == (1.0, 0.5)
    assert [look["lowered"] for look in first if look["lowered"] is not None][:3] == [0.5, 0.25, 0.0]
    more = Training(**{**run.__dict__, "train": config.model_copy(update={"env_steps": 5_000})})
    progressed = trained(more, teacher=watching(run.directory, every=2)).progressed
    assert progressed.source_id == f"{TIMER.id}*0", "what was dropped stays dropped"
    outcome = examine(more, Evaluator(workers=0))
    assert outcome["watch"]["weight"] == 0.0
    assert outcome["source_id"] == f"{TIMER.id}*0"


class Searching:
    """Stands in for the searches: each ends when it is told to, with what it is told."""

    def __init__(self, where: Path | None = None) -> None:
        self.where = where
        self.begun: list[int] = []
        self.running, self.answer = False, None

    def begin(self, films: list[Trajectory]) -> int:
        self.begun.append(len(films))
        self.running = True
        return len(self.begun)

    def result(self) -> tuple[RewardProgram | None, str] | None:
        answer, self.answer = self.answer, None
        self.running = self.running and answer is None
        return answer

    def folder(self, _: int) -> Path:
        assert self.where is not None
        return self.where

    def close(self) -> None:
        self.running = False


def test_a_repair_is_begun_at_an_alarm_and_swapped_in_when_it_is_found(tmp_path: Path) -> None:
    searching = Searching()
    config = WatchConfig(every=4, repair=True)
    watch = Watch(Watching(tmp_path / "code", 10_000, 0.0, 5, config, VerifyConfig(), repairs=searching))
    run = Training_()
    assert watch.after(run.next()) == Weighted(TIMER, 0.5), "until something better is found"
    assert (searching.begun, searching.running) == ([8], True)
    assert watch.after(run.next()) is None
    searching.answer = None, "no program survived"
    assert watch.after(run.next()) is None
    run.source = Weighted(TIMER, 0.0)
    searching.running, searching.answer = True, (SOUND.program, "")
    assert watch.after(run.next()) == Anew(SOUND), "also where the program was dropped meanwhile"
    run.source, run.success = SOUND, True
    assert not any(watch.after(run.next(20, 20)) for _ in range(5))
    summary = summed(looks(tmp_path / "code"))
    assert (summary["standing"], summary["weight"], summary["program"]) == ([], 1.0, SOUND.id)
    assert list(sentences("code", summary)) == [
        "code: an alarm against the reward was raised after 100 steps, and is over",
        f"code: the program {TIMER.id} was replaced by {SOUND.id}",
    ]
    assert [look["repair"]["state"] for look in looks(tmp_path / "code") if look["repair"]] == [
        *("begun", "nothing found", "found"),
    ]
    searching.running, searching.answer = True, (TIMER.program, "")
    solved = [Outcome(True, 4, 1.0, 0, shown=(1.0,))] * 32
    assert watch.after(run.next(20, 20, point=1, outcomes=solved)) is None
    assert looks(tmp_path / "code")[-1]["repair"]["state"] == "not needed any more"
    searching.running = True
    watch.close()
    assert not searching.running


def test_a_stop_does_not_allow_more_searches(tmp_path: Path) -> None:
    run, searching = Training_(), Searching()
    config = WatchConfig(every=1, repair=True, anneal=False)
    what = Watching(tmp_path / "code", 10_000, 0.0, 5, config, VerifyConfig(), repairs=searching)
    for _ in range(MAX_REPAIRS + 2):  # each time after a stop
        searching.running = False
        watch = Watch(what)
        for _ in range(2):
            watch.after(run.next())
    assert len(searching.begun) == MAX_REPAIRS


def test_a_repair_pays_once_it_is_approved_also_after_a_stop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    strict = VerifyConfig(require_approval=True)
    config = WatchConfig(every=4, repair=True, anneal=False)
    run, searching = Training_(), Searching(tmp_path)
    what = Watching(tmp_path / "code", 10_000, 0.0, 5, config, strict, repairs=searching)
    watch = Watch(what)
    watch.after(run.next())
    (tmp_path / "program.json").write_text(SOUND.program.to_json())
    searching.answer = SOUND.program, ""
    assert watch.after(run.next()) is None
    (said,) = [line for line in sentences("code", summed(looks(tmp_path / "code"))) if "repair" in line]
    assert said == (
        f"code: repair 1: waits for approval: it found {SOUND.id}; read it with `carl program show {tmp_path}` and "
        f"approve it with `carl program approve {tmp_path}`, and it pays from the next iteration on"
    )
    assert f"`carl program approve {tmp_path}`" in caplog.text
    assert not any(watch.after(run.next()) for _ in range(3))
    assert len(searching.begun) == 1, "nothing else is searched for meanwhile"
    watch = Watch(what)
    assert watch.after(run.next()) is None
    approval = Approval(by="Ada", at="2026-01-02T03:04:05+00:00", program=SOUND.id, verdict="")
    read = SOUND.program.model_copy(update={"provenance": Provenance(approvals=(approval,))})
    (tmp_path / "program.json").write_text(read.to_json())
    assert watch.after(run.next()) == Anew(ProgramReward(read))
    assert looks(tmp_path / "code")[-1]["repair"] == {"number": 1, "state": "found", "program": SOUND.id}
