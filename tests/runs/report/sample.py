"""A run directory as a finished run leaves it, in small: real MiniGrid frames, made-up curves."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from carl.episodes.play import rollout
from carl.episodes.trajectory import Trajectory, TrajectoryStore
from carl.nano import programs
from carl.program import RewardProgram, SubTask
from carl.rewards.latch import Latch
from carl.runs.report.strips import Progress
from carl.statistics import wilson_interval
from carl.tasks import get_task

TASK = "DoorKey-8x8"
PROGRAM = RewardProgram(
    subtasks=(
        SubTask(name="pick up the key", description="The key is no longer on the floor.", code=programs.PICK_UP_KEY),
        SubTask(name="open the door", description="The door stands open.", code=programs.OPEN_DOOR),
        SubTask(name="reach the goal", description="The agent stands on the goal.", code=programs.REACH_GOAL),
    )
)
REJECTED = RewardProgram(
    subtasks=(SubTask(name="open the door", code=programs.OPEN_DOOR), SubTask(name="wait", source=programs.OPEN_DOOR))
)
EXPERTS, RANDOMS = (1, 2, 3), (11, 12)


def traced(program: RewardProgram, trajectory: Trajectory) -> Progress:
    """The latched progress of a program that the tests trust, run in this process."""
    scopes: list[dict[str, Any]] = [{} for _ in program.subtasks]
    for scope, subtask in zip(scopes, program.subtasks, strict=True):
        exec(subtask.code, scope)
    latch, slot, rows = Latch(program, 1), np.array([0]), []
    for step, frame in enumerate(trajectory.frames):

        def judge(_: Any, tasks: Any, frame: Any = frame) -> Any:
            return np.array([scopes[task]["progress"](frame, trajectory.frames[0]) for task in tasks])

        latch.look(slot, np.array([step == 0]), judge)
        rows.append(latch.best[0].copy())
    return np.array(rows)


def write_run(directory: Path, steps: int = 65_536) -> Path:
    """Write a complete run into ``directory``."""
    task = get_task(TASK)
    experts = [rollout(task, seed, "expert") for seed in EXPERTS]
    randoms = [rollout(task, seed, "random", 80) for seed in RANDOMS]
    TrajectoryStore(directory / "trajectories/expert").write(experts)
    TrajectoryStore(directory / "trajectories/random").write(randoms)
    TrajectoryStore(directory / "training/code/episode").write(experts[:1])
    (directory / "synthesis").mkdir()
    pairs = {"initial": [one.frames[0] for one in experts[:2]], "goal": [one.frames[-1] for one in experts[:2]]}
    np.savez_compressed(directory / "synthesis/pairs.npz", **{name: np.stack(frames) for name, frames in pairs.items()})
    _dump(directory / "config.json", {"task": TASK, "seed": 7, "verify": {"deadline_s": 1.0, "memory_mb": 1024}})
    exchange = {"prompt": "decompose-1", "usage": {"calls": 1, "samples": 3, "seconds": 2.5}}
    (directory / "synthesis/exchanges.jsonl").write_text(json.dumps(exchange) + "\n" + json.dumps(exchange)[:30])
    _dump(directory / "candidates/01-prose.json", {"rejected": "the answer holds no code block", "answer": "Sure! ..."})
    _dump(directory / "candidates/02-naive.json", {"program": _plain(REJECTED), "report": _refusal()})
    _dump(directory / "candidates/03-good.json", {"program": _plain(PROGRAM), "report": _acceptance()})
    (directory / "program.json").write_text(PROGRAM.to_json())
    _dump(directory / "verification.json", _acceptance())
    for arm, midpoint in (("code", 0.3), ("sparse+progress", 0.8), ("sparse", 1.1)):
        _write_curve(directory / "training" / arm, midpoint, steps)
    _write_watch(directory / "training/code", randoms)
    _dump(directory / "result.json", _result(steps))
    return directory


def evaluation(successes: int, episodes: int = 200) -> dict[str, Any]:
    rate = successes / episodes
    found = {"episodes": episodes, "success_rate": rate, "mean_length": 21.4, "mean_return": 2.9}
    return found | {"interval": wilson_interval(successes, episodes)}


def _result(steps: int) -> dict[str, Any]:
    arms = {"code": 198, "sparse+progress": 141, "sparse": 38}
    return {
        "task": TASK,
        "seed": 7,
        "algorithm": "ppo",
        "reward": {"kind": "code", "env_reward_weight": 0.0, "env_reward_reason": "", "progress_in_observation": True},
        "program_id": PROGRAM.id,
        "vlm": {
            "model": "carl-nano",
            "calls": 4,
            "samples": 11,
            "prompt_tokens": 1312,
            "completion_tokens": 842,
            "seconds": 9.4,
        },
        "candidates": 3,
        "verification": _acceptance(),
        "env_steps": steps,
        "env_steps_per_s": 4312.5,
        "seconds": {"collect": 8.2, "synthesize": 14.9, "verify": 11.3, "train": 96.1, "evaluate": 12.0},
        "evaluation": evaluation(198)
        | {
            "arms": {
                arm: {
                    "headline": "greedy",
                    "greedy": evaluation(successes),
                    "sampled": evaluation(max(0, successes - 3)),
                    "env_steps": steps,
                    "env_steps_per_s": 4312.5,
                    "seconds": 16.0,
                }
                for arm, successes in arms.items()
            }
        },
        "abstains": 0,
        "versions": {"carl": "0.1.0", "ray": "2.60.0", "torch": "2.13.0"},
    }


def _acceptance() -> dict[str, Any]:
    return {
        "accepted": True,
        "checks": [
            {"name": "static_policy", "passed": True, "figures": {"violations": 0}},
            {"name": "experts_complete", "passed": True, "figures": {"completed": 60, "episodes": 60}},
            {
                "name": "random_completion",
                "passed": True,
                "figures": {"share": 0.015, "interval": [0.005, 0.043], "episodes": 200},
            },
            {"name": "deterministic", "passed": True, "figures": {"differing_frames": 0}},
            {"name": "abstains", "passed": True, "figures": {"abstains": 0}},
        ],
    }


def _refusal() -> dict[str, Any]:
    frame = {"source": "expert", "seed": EXPERTS[0], "step": 9, "subtask": 1, "expected": "below 1", "got": 1.0}
    return {
        "accepted": False,
        "checks": [
            {"name": "static_policy", "passed": True, "figures": {"violations": 0}},
            {
                "name": "already_done",
                "passed": False,
                "figures": {"episodes": 60},
                "evidence": "The sub-task 'wait' is already done at the frame where it becomes active.",
                "frames": [frame],
            },
        ],
    }


def _write_curve(directory: Path, midpoint: float, steps: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "curve.jsonl").open("w") as file:
        for part in np.linspace(0.04, 1.0, 16):
            share = round(32 / (1 + np.exp(-14 * (part - midpoint)))) / 32
            point = {
                "env_steps": int(part * steps),
                "seconds": 16 * part,
                "episodes": int(900 * part),
                "mean_return": 3 * share,
                "success_rate": share,
                "evaluation": {"episodes": 32, "success_rate": share, "mean_return": 2.8 * share + 0.1},
            }
            file.write(json.dumps(point) + "\n")


def _write_watch(directory: Path, films: list[Trajectory]) -> None:
    """An alarm that was raised for ``films``, and is over."""
    TrajectoryStore(directory / "watched").write([replace(film, role="policy") for film in films])
    frame = {"source": "policy", "seed": films[0].seed, "step": 9, "subtask": None, "expected": "solved", "got": "not"}
    check = {"name": "completed_unsolved", "passed": False, "message": "2 of 2 leave it unsolved", "frames": [frame]}
    look = {"iterations": 2, "env_steps": 4_096, "share": 0.0625, "program": PROGRAM.id, "weight": 1.0, "seconds": 0.25}
    alarm = {"rule": "completed_unsolved", "message": check["message"]}
    looks = [
        {**look, "checks": [check], "alarms": [alarm], "lowered": 0.5},
        {**look, "iterations": 9, "weight": 0.5, "checks": [], "alarms": [], "lowered": None},
    ]
    repaired = PROGRAM.model_copy(update={"subtasks": PROGRAM.subtasks[::-1]})
    (directory / "repair-1").mkdir(parents=True)
    (directory / "repair-1/program.json").write_text(repaired.to_json())
    (directory / "watch.jsonl").write_text("".join(json.dumps(one) + "\n" for one in looks))


def _plain(program: RewardProgram) -> Any:
    return program.model_dump(mode="json")


def _dump(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
