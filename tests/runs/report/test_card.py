"""The reward card: the hardest frames, what was tried, and what the evidence cannot exclude."""

import json
from pathlib import Path

import numpy as np
import pytest

from carl.config import VerifyConfig
from carl.episodes.trajectory import Trajectory
from carl.program import RewardProgram, SubTask
from carl.provenance import Approval, Provenance
from carl.runs.files import Files
from carl.runs.reader import Run
from carl.runs.report.card import card
from carl.runs.report.closest import calls
from carl.runs.report.doubts import doubts, said_of
from carl.verification import default_rules
from tests.runs.report.sample import EXPERTS, PROGRAM, traced, write_run

TWO = RewardProgram(subtasks=(SubTask(name="a", code="x"), SubTask(name="b", code="x")))


def episode(role: str, seed: int, *lit: int) -> Trajectory:
    """Frames of 4 x 4 pixels, of which so many are white."""
    frames = np.zeros((len(lit), 16, 3), np.uint8)
    for frame, count in zip(frames, lit, strict=True):
        frame[:count] = 255
    steps = len(lit) - 1
    return Trajectory(
        role=role,
        frames=frames.reshape(len(lit), 4, 4, 3),
        actions=np.zeros(steps, np.int64),
        rewards=np.zeros(steps),
        seed=seed,
        terminated=True,
        truncated=False,
        success=role == "expert",
    )


def test_the_finest_distinction_and_the_nearest_miss_are_found() -> None:
    coarse = episode("expert", 1, 0, 8, 10, 16), np.array([[0.0, 0], [1, 0], [1, 0], [1, 1]])
    fine = episode("expert", 2, 0, 6, 7, 16), np.array([[0.0, 0], [0.5, 0], [1, 0], [1, 1]])
    missed = episode("random", 3, 0, 3, 5, 1), np.array([[0.0, 0], [0, 0], [0, 0], [0, 0]])
    first, miss, second = calls(TWO, [coarse, fine, missed])
    assert (first.subtask, [said for _, said in first.pictures]) == (1, ["step 1: not done", "step 2: done"])
    assert first.caption == "expert episode, seed 2: the two frames differ in 6.2\u00a0% of the pixels"
    assert (miss.subtask, [said for _, said in miss.pictures]) == (1, ["step 2: not done"])
    assert miss.caption.startswith("random episode, seed 3, in which it never got done: 12.5\u00a0% of the pixels")
    assert (second.subtask, len(second.pictures)) == (2, 2)
    assert second.caption.startswith("expert episode, seed 1"), "6 of 16 pixels there, 9 of 16 in the other"


def test_what_never_fires_or_fires_at_once_has_no_frames_before() -> None:
    at_once = episode("expert", 1, 0, 1), np.array([[1.0, 0], [1, 0]])
    assert calls(TWO, [at_once]) == []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample run, with a verdict of more rules, a search that spent something, and an approval."""
    directory = write_run(tmp_path_factory.mktemp("card"))
    figures = {"share": 0.015, "interval": [0.005, 0.043], "bound": 0.038, "episodes": 200, "limit": 0.1}
    sound = {
        "experts": 60,
        "distinct": 1,
        "excluded": 0.0487,
        "contradicted": 1 / 90,
        "comparable": 90,
        "bound": 0.0517,
    }
    checks = [
        {"name": "experts_complete", "passed": True, "figures": {"completed": 60, "episodes": 60}},
        {"name": "random_completion", "passed": True, "figures": figures | {"done_per_subtask": [31.0, 8.0, 3.0]}},
        {
            "name": "for_nothing_mixed",
            "passed": True,
            "figures": {"share": 0.01, "shares": [0.04, 0.0, 0.0], "bound": 0.13},
        },
        {"name": "sound_evidence", "passed": True, "figures": sound},
        {"name": "needed", "passed": True, "figures": {"ornaments": [2.0], "bounds": [0.3, 0.02]}},
        {
            "name": "lasting",
            "passed": True,
            "figures": {
                "limit": 1.0,
                "undone": [0.0, 0.9, 0.0],
                "bounds": [0.049, 0.95, 0.2],
                "followed": [60.0, 9.0, 0.0],
            },
        },
        {"name": "cost", "passed": True, "figures": {"ms_per_frame": 0.21, "limit_ms": 10.0}},
    ]
    report = {
        "program_id": PROGRAM.id,
        "accepted": True,
        "checks": checks,
        "episodes": {"expert": 60, "random": 200, "mixed": 60},
        "unjudged": {"only_solved_cut": "no episodes can be cut"},
    }
    (directory / "verification.json").write_text(json.dumps(report))
    approval = Approval(by="Ada", at="2026-01-02T03:04:05+00:00", program=PROGRAM.id, verdict="d", note="Read it.")
    known = PROGRAM.model_copy(update={"provenance": Provenance(origin="a model", parent="p0", approvals=(approval,))})
    (directory / "program.json").write_text(known.to_json())
    search = {"spent": {"calls": 4, "money": 0.25}, "proposer": "model"}
    naive = directory / "candidates/02-naive.json"
    naive.write_text(json.dumps(json.loads(naive.read_text()) | search))
    return directory


def test_the_card_has_the_verdict_and_figures_of_each_sub_task_with_bounds(run: Path) -> None:
    found = card(Run(Files(run)), traced)
    assert found.accepted is True
    assert found.verdict.startswith("Accepted: it passed all 7 checks on 60 expert, 200 random, 60 mixed episodes")
    assert [row.share for row in found.rows] == [33.3, 33.3, 33.3]
    assert found.rows[0].figures == {
        "done by experts": "60 of 60 (at least 95.1\u00a0%)",
        "done in random play": "31 of 200 (at most 20.3\u00a0%)",
        "paid for nothing, mixed": "4\u00a0%",
    }
    assert found.origin == f"Program {PROGRAM.id}: by a model; edited from p0."
    assert found.headings == list(found.rows[0].figures)
    assert found.approvals == ["Approved by Ada at 2026-01-02T03:04:05+00:00. Read it."]
    assert {call.subtask for call in found.calls} == {1, 2, 3}


def test_the_card_says_what_was_tried_what_it_took_and_what_may_be_wrong(run: Path) -> None:
    found = card(Run(Files(run)), traced)
    assert [(one.reason, one.times) for one in found.tried] == [("no program", 1), ("done from the start", 1)]
    assert found.tried[0].example == "the answer holds no code block"
    (refusal,) = found.refusals
    assert refusal.caption.endswith(f"got 1 (expert episode, seed {EXPERTS[0]}, step 9)")
    assert dict(found.cost)["money"] == "0.25"
    assert dict(found.cost)["programs tried"] == "2 (1 model)"
    assert dict(found.cost)["to judge a frame"] == "0.21 ms"
    doubts = "\n".join(found.doubts)
    assert "Never done by an expert: in up to 4.9\u00a0% of such episodes" in doubts
    assert "Completed by random play with the task unsolved: in up to 3.8\u00a0%" in doubts
    assert "Not judged: completed without solving the task, in cut episodes, since no episodes can be cut." in doubts
    assert (
        "Paid for nothing, in mixed episodes: 1\u00a0% of the return on average, anything in up to 13\u00a0% of the"
        in doubts
    )
    assert "A fault in up to 4.9\u00a0% of the seeds may not show in 60 experts." in doubts
    assert "Of the 60 expert episodes only 1 is distinct: the others repeat it frame by frame." in doubts
    assert "Success that no frame shows: in up to 5.2\u00a0% of episodes (1 of 90 that could be compared" in doubts
    assert "Sub-task 2 may be an ornament: next to nothing changes without it, in up to 2\u00a0% of" in doubts
    assert "Undone again by moving on: in up to 4.9\u00a0% to 95\u00a0% of such episodes" in doubts
    assert [one for one in found.doubts if "stays done" in one] == [
        "Whether sub-task 3 stays done: no episode goes on after it."
    ]
    assert "Not judged: undone again by moving on, since the settings allow it in every episode." in doubts
    assert doubts.index("95") < doubts.index("done by an expert") < doubts.index("3.8"), "the loosest bound first"


def test_the_card_says_where_there_were_fewer_episodes_than_asked_for(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"collect": {"excludes": 0.05}}))
    report = {"checks": [], "episodes": {"expert": 59, "random": 200, "cut": 12, "mixed": 40}}
    said = [one for one in doubts(Run(Files(tmp_path)), report) if one.startswith("Fewer")]
    assert said == [
        "Fewer episodes than 59 of each kind, which collect.excludes asks for to exclude 5\u00a0%: 12 cut, 40 mixed."
    ]


def test_a_refusal_and_a_missing_verdict_are_said(run: Path, tmp_path: Path) -> None:
    report = json.loads((run / "verification.json").read_text())
    (tmp_path / "program.json").write_text(PROGRAM.to_json())
    nothing = card(Run(Files(tmp_path)), traced)
    assert (nothing.accepted, nothing.doubts) == (None, [])
    assert nothing.verdict.startswith("No verdict")
    report["accepted"] = report["checks"][1]["passed"] = False
    (tmp_path / "verification.json").write_text(json.dumps(report))
    refused = card(Run(Files(tmp_path)), traced)
    assert refused.verdict.endswith("the search had not seen: completed by random play with the task unsolved.")
    (tmp_path / "verification.json").write_text(json.dumps(report | {"program_id": "of another"}))
    assert card(Run(Files(tmp_path)), traced).accepted is None


def test_checks_are_named_by_what_is_wrong() -> None:
    assert said_of("only_solved_policy") == "completed without solving the task, in policy episodes"
    assert said_of("a_rule_of_tomorrow") == "a rule of tomorrow"
    names = [rule.name for rule in default_rules(VerifyConfig(camera_varies=True))]
    assert [name for name in names if said_of(name) == name.replace("_", " ")] == []


def test_where_no_program_was_found_the_one_that_got_furthest_is_named(tmp_path: Path) -> None:
    best = {"file": "candidates/03-a.json", "words": "passed all but one"}
    (tmp_path / "synthesis.json").write_text(json.dumps({"best": best, "notes": ["The plan is questioned."]}))
    found = card(Run(Files(tmp_path)), traced)
    assert found.notes == ["The plan is questioned.", "The best, candidates/03-a.json, passed all but one."]
    assert (found.rows, found.calls, found.tried) == ([], [], [])
