"""Who is asked for programs where the settings do not say."""

from pathlib import Path

import numpy as np
import pytest

from carl.config import SynthesisConfig, VlmConfig
from carl.episodes.play import first_frame
from carl.methods.proposing import ORIGINS, names_of, nothing_found
from carl.program import RewardProgram, SubTask
from carl.synthesis.ledger import Ledger
from carl.synthesis.search import HeldOutGate, SearchGate, search
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
    assert (
        "failed experts_complete: it is never done. Raise synthesis.max_seconds, and the same command goes on" in said
    )
    said = nothing_found(found, ("model",), ledger, Budget(calls=9))
    assert "it is never done. Try another --seed, a larger budget (synthesis.max_req" in said
