"""What a search tried survives on disk: verdicts are read from the content of files, whatever they are called."""

import json
from pathlib import Path

import pytest

from carl.errors import ConfigError
from carl.program import RewardProgram, SubTask
from carl.synthesis.ledger import Ledger
from carl.synthesis.standing import furthest, shortfall
from carl.synthesis.tried import Candidate, Cost, HeldOut, Rejection
from carl.verification import Check, VerificationReport


def program(value: float) -> RewardProgram:
    return RewardProgram(subtasks=(SubTask(name="a", code=f"def progress(frame, initial):\n    return {value}\n"),))


def report(judged: RewardProgram, accepted: bool) -> VerificationReport:
    checks = (Check(name="experts_complete", passed=accepted, message="said", figures={"episodes": 2}),)
    figures = {"episodes": {"expert": 2, "random": 3}, "frames": 4, "seconds": 0.5}
    return VerificationReport(program_id=judged.id, accepted=accepted, checks=checks, **figures)


ONE, TWO, THREE, FOUR = map(program, (0.1, 0.2, 0.3, 0.4))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """One candidate that failed in the search, one that failed later, one that passed, and an answer of no use."""
    made = Ledger(tmp_path / "candidates")
    made.keep(Candidate(1, ONE, report(ONE, False), None, Cost(calls=3)))
    made.keep(Candidate(2, TWO, report(TWO, True)))
    made.keep(Candidate(2, TWO, report(TWO, True), HeldOut(1, report(TWO, False))))
    made.keep(
        Candidate(3, THREE, report(THREE, True), HeldOut(2, report(THREE, True)), Cost(1), Cost(4, seconds=2.5), "pool")
    )
    made.reject([Rejection(2, 0, "write/1", "no program: prose", "no program")])
    return made


def test_verdicts_are_those_on_held_out_episodes(ledger: Ledger) -> None:
    two, three = HeldOut(1, report(TWO, False)), HeldOut(2, report(THREE, True))
    assert ledger.verdicts() == {TWO.id: two, THREE.id: three}
    assert ledger.refusals() == [two]
    assert len(list(ledger.folder.iterdir())) == 4
    assert ledger.seconds() == 2.5


def test_no_state_is_in_the_names_of_files(ledger: Ledger) -> None:
    before = ledger.verdicts()
    for number, path in enumerate(sorted(ledger.folder.iterdir())):
        path.rename(ledger.folder / f"{number}.json")
    assert ledger.verdicts() == before


def test_a_file_holds_number_program_reports_and_cost(ledger: Ledger) -> None:
    content = json.loads((ledger.folder / f"03-{THREE.id}.json").read_text())
    assert content == {
        "number": 3,
        "proposer": "pool",
        "cost": {"calls": 1, "tokens": 0, "seconds": 0.0, "money": 0.0},
        "spent": {"calls": 4, "tokens": 0, "seconds": 2.5, "money": 0.0},
        "program": THREE.model_dump(mode="json"),
        "report": report(THREE, True).model_dump(mode="json"),
        "held_out": {"set": 2, "report": report(THREE, True).model_dump(mode="json")},
    }


def test_candidates_are_read_again(ledger: Ledger) -> None:
    found = ledger.candidates()
    assert [each.program for each in found] == [ONE, TWO, THREE]
    assert [each.number for each in found] == [1, 2, 3]
    assert [each.accepted for each in found] == [False, False, True]
    assert found[2].proposer == "pool"
    assert furthest(found[:2]) == found[1], "it passed on the episodes of the search"
    assert shortfall(found[1]) == "passed no checks on held-out episodes, and failed experts_complete: said"


def test_a_refusal_of_a_program_from_elsewhere_counts(ledger: Ledger) -> None:
    ledger.refuse(FOUR, HeldOut(2, report(FOUR, False)))
    assert [each.report.program_id for each in ledger.refusals()] == [TWO.id, FOUR.id]


def test_files_of_an_older_carl_are_read(tmp_path: Path) -> None:
    content = {"program": ONE.model_dump(mode="json"), "report": report(ONE, False).model_dump(mode="json")}
    for name in (f"01-{ONE.id}", f"held-out-2-{ONE.id}"):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert Ledger(tmp_path).verdicts() == {ONE.id: HeldOut(2, report(ONE, False))}


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"program": {}}', '{"program": {"a": 1}, "held_out": {"set": 1}}']
)
def test_a_damaged_file_is_named(ledger: Ledger, content: str) -> None:
    (ledger.folder / "09-x.json").write_text(content)
    with pytest.raises(ConfigError, match=r"09-x\.json is not what this carl wrote .*delete it"):
        ledger.verdicts()
