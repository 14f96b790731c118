"""Who is asked for programs where the settings do not say."""

from pathlib import Path

import numpy as np
import pytest

from carl.config import SynthesisConfig, VlmConfig
from carl.episodes.play import first_frame
from carl.methods.proposing import ORIGINS, names_of, nothing_found
from carl.program import RewardProgram, SubTask
from carl.synthesis.ledger import Ledger
from carl.synthesis.search import Found, HeldOutGate, SearchGate, search
from carl.synthesis.tried import Budget, Candidate, Cost
from carl.tasks import get_task
from carl.verification import Check, VerificationReport

LAKE = np.full((64, 64, 3), 99, np.uint8)
"""A size that the embedded model can take, and tiles that it does not know."""

ROOM = first_frame(get_task("DoorKey-5x5"))[0]
HELPED = ("pool", "tune", "step", "model", "induction")


@pytest.mark.parametrize(
    ("vlm", "frame", "names"),
    [
        (VlmConfig(), LAKE, ("induction",)),
        (VlmConfig(), LAKE[:60], ("induction",)),
        (VlmConfig(), ROOM, ("model", "induction")),
        (VlmConfig(model="other"), LAKE, HELPED),
        (VlmConfig(recording="some/exchanges.jsonl"), LAKE, HELPED),
    ],
)
def test_proposers_follow_from_the_model_and_the_pictures(vlm: VlmConfig, frame: np.ndarray, names: tuple) -> None:
    assert names_of(vlm, SynthesisConfig(), frame) == names
    asked = SynthesisConfig.model_validate({"proposers": "tune, model"})
    assert names_of(vlm, asked, frame) == ("tune", "model")


def test_proposers_that_only_go_on_from_programs_are_refused() -> None:
    with pytest.raises(ValueError, match="proposers=pool,tune only go on from programs: add model or induction"):
        SynthesisConfig.model_validate({"proposers": "pool,tune"})


def test_every_proposer_has_words() -> None:
    assert set(ORIGINS) == set(HELPED)


def test_a_search_whose_time_was_up_names_the_best_of_earlier_attempts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    program = RewardProgram(subtasks=(SubTask(name="a", code="def progress(frame, initial):\n    return 0.5\n"),))
    check = Check(name="experts_complete", passed=False, subtask=0, message="it is never done")
    report = VerificationReport(
        program_id=program.id, accepted=False, checks=(check,), episodes={}, frames=0, seconds=0.0
    )
    ledger.keep(Candidate(1, program, report, spent=Cost(seconds=70.0)))
    gate = SearchGate(lambda _: report, HeldOutGate(lambda *_: report))
    budget = Budget(calls=9, seconds=60.0)
    found = search([], gate, budget, before=ledger.seconds())
    said = nothing_found(found, ("model",), ledger, budget)
    assert f"The best is {tmp_path}/01-{program.id}.json: it passed no checks" in said
    *_, failed, advice = said.splitlines()
    assert failed == "- experts_complete: it is never done"
    assert advice == "Raise synthesis.max_seconds, and the same command goes on."
    said = nothing_found(found, ("model",), ledger, Budget(calls=9))
    assert said.splitlines()[-1].startswith("Try another --seed, a larger budget (synthesis.max_req")


@pytest.mark.parametrize(
    ("failing", "helps"),
    [
        (["cost"], ["Raise verify.max_frame_ms"]),
        (["lasting", "cost"], ["Raise verify.max_frame_ms", "Raise verify.max_undone", "Name a model"]),
        (["experts_complete"], ["Name a model"]),
    ],
)
def test_what_the_best_program_failed_is_said_once_and_then_what_helps_for_that(
    tmp_path: Path, failing: list[str], helps: list[str]
) -> None:
    program = RewardProgram(subtasks=(SubTask(name="a", code="def progress(frame, initial):\n    return 0.5\n"),))
    checks = [Check(name=name, passed=False, subtask=0, message=f"it is bad at {name}:\n- here") for name in failing]
    report = VerificationReport(
        program_id=program.id, accepted=False, checks=(*checks, checks[0]), episodes={}, frames=0, seconds=0.0
    )
    found = Found(None, (Candidate(1, program, report),), (), 0, Cost(), "nothing more is proposed")
    said = nothing_found(found, ("induction",), Ledger(tmp_path), Budget(calls=9))
    first, best, *lines = said.splitlines()
    assert first.endswith(f"nothing more is proposed; 1 of 1 programs failed at {failing[0]}.")
    assert best.endswith("it passed no checks on the episodes of the search, and failed")
    assert lines[: len(failing)] == [f"- {name}: it is bad at {name}: - here" for name in failing]
    assert [line[: len(start)] for line, start in zip(lines[len(failing) :], helps, strict=True)] == helps
