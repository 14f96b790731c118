"""The benchmark of rewards: its oracle accuracy, its labels, and that it goes on where it was."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer import Typer
from typer.main import get_command
from typer.testing import CliRunner

from benchmarks import hacked, induction, reward_quality
from benchmarks.quality import zoo
from benchmarks.quality.accuracy import Count, completed, counted, in_order, judged, matched, shown
from benchmarks.quality.held_out import held_out
from benchmarks.quality.kept import Kept, check_fault
from benchmarks.quality.precision import measured, precision
from benchmarks.quality.steps import steps
from carl.config import VerifyConfig
from carl.console.progress import silent
from carl.episodes.trajectory import Trajectory
from carl.errors import BoxError, ProgramError, StoreError
from carl.program import RewardProgram, SubTask
from carl.tasks import get_task
from tests.verification.episodes import GOAL, KEY, experts, kinds, randoms

KEY_GONE = f"def progress(frame, initial):\n    return float(not (frame[2:6, {KEY}:{KEY + 2}, 1] > 200).any())\n"
AT_GOAL = f"def progress(frame, initial):\n    return float(frame[3, {GOAL + 3}, 0] > 200)\n"
NEAR_GOAL = f"def progress(frame, initial):\n    return float((frame[3, {GOAL - 6}:, 0] > 200).any())\n"
MOVED = "def progress(frame, initial):\n    return 0.5 * float((frame != initial).any())\n"


def program(*codes: str, hold: int = 1) -> RewardProgram:
    return RewardProgram(
        subtasks=tuple(SubTask(name=f"step {number}", code=code, hold=hold) for number, code in enumerate(codes))
    )


def with_events(episodes: Sequence[Trajectory]) -> list[Trajectory]:
    """The strip's own oracle: whether the key is gone, and whether the agent is at the goal."""
    return [
        replace(
            one,
            events={
                "key taken": np.array([not (frame[2:6, KEY : KEY + 2, 1] > 200).any() for frame in one.frames]),
                "at goal": np.array([frame[3, GOAL + 3, 0] > 200 for frame in one.frames]),
            },
        )
        for one in episodes
    ]


@pytest.fixture(scope="module")
def held() -> dict[str, list[Trajectory]]:
    return {"expert": with_events(experts()), "random": with_events(randoms(20))}


def test_events_latch_in_order() -> None:
    first, second = np.array([0, 0, 1, 0, 0], bool), np.array([1, 0, 0, 0, 1], bool)
    assert in_order([first, second]).T.tolist() == [[False, False, True, True, True], [False] * 4 + [True]]
    assert not in_order([second, np.zeros(5, bool), first])[:, 1:].any()


def test_a_good_program_is_right_at_every_frame(held: dict[str, list[Trajectory]]) -> None:
    found = measured(program(KEY_GONE, AT_GOAL), held, documented=False)
    assert [part["event"] for part in found["subtasks"]] == ["key taken", "at goal"]
    assert {part[name] for part in (*found["subtasks"], found["completed"]) for name in ("precision", "recall")} == {1}
    assert found["unmatched"] == found["events_of_none"] == []


def test_an_early_sub_task_means_no_event_and_is_never_counted(held: dict[str, list[Trajectory]]) -> None:
    found = measured(program(KEY_GONE, NEAR_GOAL), held, documented=False)
    assert [part["event"] for part in found["subtasks"]] == ["key taken"]
    assert found["unmatched"] == ["step 1"]
    assert found["events_of_none"] == ["at goal"]
    assert found["completed"]["precision"] < 1


def test_a_sub_task_that_has_to_last_means_what_happened_when_it_began(held: dict[str, list[Trajectory]]) -> None:
    patient = program(KEY_GONE, hold=3)
    made = {kind: shown(patient, episodes) for kind, episodes in held.items()}
    assert matched(patient, held["expert"], made["expert"]) == {0: ("key taken", 1.0)}
    count = counted({0: "key taken"}, made, held)[0]
    assert count.precision == 1
    assert 0.5 < count.recall < 1


def test_precision_and_recall_count_frames() -> None:
    count = Count()
    count.add(np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool))
    assert (count.precision, count.recall, count.accuracy) == (0.5, 0.5, 0.5)
    assert (Count().precision, Count().recall) == (1, 1)


def test_labels_are_accuracy_earliness_and_pay_for_nothing(held: dict[str, list[Trajectory]]) -> None:
    events = ("key taken", "at goal")
    good = judged(program(KEY_GONE, AT_GOAL), events, held)
    assert (good.accuracy, good.early, good.paid) == (1, 0, 0)
    assert judged(program(KEY_GONE, NEAR_GOAL), events, held).early == 1
    assert judged(program(KEY_GONE), events[:1], held).early == 1  # its last sub-task is dropped
    moved = judged(program(MOVED, AT_GOAL), events, held)
    assert moved.accuracy < 0.9
    assert moved.paid == pytest.approx(0.25)
    shown_at_once = "def progress(frame, initial):\n    return 0.5 + 0.2 * float((frame != initial).any())\n"
    assert judged(program(shown_at_once, AT_GOAL), events, held).paid == pytest.approx(0.1), "0.5 is its zero"


def test_completion_is_compared_with_success(held: dict[str, list[Trajectory]]) -> None:
    made = {kind: shown(program(KEY_GONE), episodes) for kind, episodes in held.items()}
    count = completed(made, held)
    assert count.recall == 1
    assert count.precision < 1
    assert count.frames == sum(map(len, held.values()))


def test_held_out_episodes_are_of_three_kinds_with_events() -> None:
    found = held_out(get_task("Unlock"), {"expert": 3, "random": 2, "mixed": 3})
    assert {kind: len(episodes) for kind, episodes in found.items()} == {"expert": 3, "random": 2, "mixed": 3}
    assert all(episode.success for episode in found["expert"])
    assert all(list(one.events) == ["key carried", "door open"] for part in found.values() for one in part)
    assert len({one.seed for part in found.values() for one in part}) == 8


def test_a_half_trained_expert_that_is_lost_ends_its_episode() -> None:
    lost = replace(get_task("Unlock"), expert=lambda env: lambda observation: [5, 2][env.unwrapped.step_count])
    found = held_out(lost, {"expert": 0, "random": 0, "mixed": 2})["mixed"]
    assert [len(one) for one in found] == [2, 2]
    assert not any(one.success for one in found)


def test_results_are_kept_and_the_last_line_has_every_key(tmp_path: Path) -> None:
    program_of = {"program": program(AT_GOAL).to_json(), "seconds": 3.0}
    part = {"precision": 0.9, "recall": 1.0, "documented_exception": False}
    exception = {"precision": 0.1, "recall": 0.1, "documented_exception": True}
    figures = {"subtasks": [part, exception], "completed": part, "unmatched": ["look"]}
    kept = Kept(tmp_path / "results.json")
    for key, value in {
        "program/Unlock/model": program_of,
        "program/Unlock/induction": {"why": "success cannot be seen"},
        "precision/Unlock/model": figures,
        "hacked.py --program timer": {"rejected": True, "alarm_at": 0.05, "repaired_success": 0.97, "timer": {}},
        "hacked.py --program capped": {"capped.rejected": True, "capped.alarm_at": 0.4, "capped": {}},
        "hacked.py --program milestones": {"milestones.alarm_at": 0.1},
        "induction.py Unlock": {
            "setting": {},
            "induction.Unlock.verified": 5,
            "induction.Unlock.seconds": [20.0],
        },
        "verification.py": {"verify_over_before": 0.4},
        "success/Unlock/0": {"success_rate": 0.9, "arms": {"sparse": 0.5, "sparse+progress": 0.25}},
        "success/Unlock/1": {"success_rate": 1.0, "arms": {"sparse": 0.1, "sparse+progress": 0.0}},
    }.items():
        kept.get(key, lambda value=value: value)
    app = Typer()
    app.command()(reward_quality.main)
    parts = "precision,hack,induction,success,verify"
    options = [
        "--parts",
        parts,
        "--tasks",
        "Unlock",
        "--proposers",
        "model,induction",
        "--seeds",
        "2",
        "--directory",
        tmp_path,
    ]
    said = CliRunner().invoke(app, [*map(str, options)], catch_exceptions=False)
    last = json.loads(said.stdout.splitlines()[-1])
    assert {key: value for key, value in last.items() if key not in ("benchmark", "parts", "versions")} == {
        "precision_min": 0.9,
        "recall_min": 1.0,
        "unmatched": 1,
        "without_program": ["Unlock/induction"],
        "bad_rejected": None,
        "good_rejected": None,
        "dropped_last_rejected": None,
        "hack.rejected": True,
        "hack.alarm_at": 0.05,
        "hack.repaired_success": 0.97,
        "hack.capped.rejected": True,
        "hack.capped.alarm_at": 0.4,
        "hack.milestones.alarm_at": 0.1,
        "induction.Unlock.verified": 5,
        "induction.Unlock.seconds": [20.0],
        "success.Unlock": 0.95,
        "sparse.Unlock": 0.3,
        "verify_over_before": 0.4,
    }


@pytest.mark.parametrize("reason", ["ended its process (signal 9)", "gave no answer for 10 s, which it mostly waited"])
def test_a_fault_of_the_machine_is_no_result(tmp_path: Path, reason: str) -> None:
    kept = Kept(tmp_path / "results.json")

    def measure() -> str:
        check_fault(reason)
        return "accepted"

    with pytest.raises(BoxError, match="nothing is kept"):
        kept.get("program", measure)
    assert Kept(tmp_path / "results.json").found == {}
    reason = "ran past its deadline of 1 s"
    assert kept.get("program", measure) == "accepted"


def test_a_search_that_a_full_disk_ended_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> None:
        raise next(errors)

    monkeypatch.setattr("benchmarks.quality.precision.Pipeline.run", run)
    errors = iter([StoreError("no space left"), ProgramError("no program survived")])
    kept = Kept(tmp_path / "results.json")
    with pytest.raises(StoreError):
        precision(["Unlock"], ["model"], tmp_path, kept, silent)
    assert precision(["Unlock"], ["model"], tmp_path, kept, silent)["without_program"] == ["Unlock/model"]


def test_steps_are_compared_by_their_means_where_both_programs_were_found(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "results.json")
    ours, theirs = (zoo.good_programs("Unlock")[k].program for k in (0, 1))
    for key, value in {
        "program/Unlock/model": {"program": theirs.to_json()},
        "program/Unlock/induction": {"program": ours.to_json()},
        f"steps/Unlock/{theirs.id}/0": {"steps": 10_000, "reached": True},
        f"steps/Unlock/{theirs.id}/1": {"steps": 30_000, "reached": True},
        f"steps/Unlock/{ours.id}/0": {"steps": 20_000, "reached": True},
        f"steps/Unlock/{ours.id}/1": {"steps": 30_000, "reached": False},
        "program/DoorKey-6x6/model": {"program": theirs.to_json()},
        "program/DoorKey-6x6/induction": {"why": "success cannot be seen"},
    }.items():
        kept.get(key, lambda value=value: value)
    found = steps(("Unlock", "DoorKey-6x6"), 2, tmp_path, kept, silent)
    assert found["Unlock"]["induction_over_model"] == 1.25
    assert found["Unlock"]["induction"]["never"] == [1]
    assert found["DoorKey-6x6"]["why"] == {"induction": "success cannot be seen"}
    assert reward_quality.headline({"steps": found})["steps.DoorKey-6x6"] is None


def test_a_script_that_fails_does_not_cost_the_other_parts(tmp_path: Path) -> None:
    asked = reward_quality.Asked(None, tmp_path, Kept(tmp_path / "results.json"), silent)
    found = reward_quality.measured_by("no_such_benchmark.py", asked)
    assert list(found) == ["why not no_such_benchmark.py"]
    assert not (tmp_path / "results.json").exists()
    assert reward_quality.headline({"induction": found, "hack": found})["hack.rejected"] is None


def test_other_benchmarks_are_asked_what_they_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(reward_quality, "measured_by", lambda _, __, *options: asked.append(options) or {})
    what = reward_quality.Asked(("Unlock",), tmp_path, Kept(tmp_path / "results.json"), silent)
    for measure, main, takes in (
        (reward_quality._induction, induction.main, {"tasks": ["Unlock"]}),
        (reward_quality._hack, hacked.main, {"program": ["milestones"]}),
    ):
        measure(what)
        app = Typer()
        app.command()(main)
        assert get_command(app).make_context("it", [*asked[-1]]).params.items() >= takes.items()


def test_shares_are_of_what_the_oracle_calls_bad_and_of_known_good(tmp_path: Path) -> None:
    """Every bad program but the dropped last ones is rejected here, and one good one."""
    kept = Kept(tmp_path / "results.json")
    goods, bads = zoo.good_programs("Unlock"), zoo.bad_programs("Unlock")
    for named in (*goods, *bads):
        good = named in goods
        figures = {"accuracy": 1.0 if good else 0.5, "early": 0.0, "paid": 0.1 if named.kind == "graded" else 0.0}
        rejected = named.name == goods[1].name if good else named.kind != "dropped last"
        key = f"Unlock/{named.kind}/{named.name}/{named.program.id}"
        kept.get(f"label/{key}", lambda value=figures: value)
        kept.get(f"gate/{key}", lambda value=rejected: "a rule" if value else "")
    found = zoo.zoo(["Unlock"], tmp_path, kept, silent)
    last = sum(named.kind == "dropped last" for named in bads)
    assert found["bad_rejected"] == pytest.approx(1 - last / len(bads), abs=1e-4)
    assert found["dropped_last_rejected"] == 0
    assert len(found["bad_accepted"]) == last
    graded = sum(named.kind == "graded" for named in goods)
    assert found["good_rejected"] == pytest.approx(1 / (len(goods) - graded), abs=1e-4)
    assert len(found["good_called_bad"]) == graded


def test_a_program_is_rejected_by_its_first_failed_check_on_either_set() -> None:
    named = zoo.Named("good", "strip", program(KEY_GONE, AT_GOAL), ("key taken", "at goal"))
    config, late = VerifyConfig(min_experts=2, min_randoms=60), program(KEY_GONE, AT_GOAL.replace("200", "255"))
    fair = kinds(experts(), randoms())
    unfair = kinds(experts(), [replace(one, success=False) for one in experts(60)])
    assert zoo.rejected_by(named._replace(program=late), [fair, fair], config) == "experts_complete"
    assert zoo.rejected_by(named, [fair], config) == ""
    assert zoo.rejected_by(named, [fair, unfair], config).startswith("held out: ")
