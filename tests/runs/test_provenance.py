"""Where a program came from, and on which verdict it was approved, stays true whatever becomes of it."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from carl.cli import app
from carl.config import VerifyConfig
from carl.errors import ApprovalError
from carl.methods import Work
from carl.methods.code import CodeConfig, found
from carl.methods.origin import notes_on, require_approval, with_origin, with_verdict
from carl.program import RewardProgram
from carl.provenance import Approval, Provenance, Verdict
from carl.runs.files import Files
from carl.runs.programs import desk
from carl.runs.programs.located import located
from carl.runs.programs.screen import origin
from carl.runs.reader import Run
from carl.runs.screen import _vlm, picture
from carl.runs.watch import look
from carl.runs.words import named, whence
from carl.synthesis.tried import Candidate, HeldOut
from carl.tasks import get_task
from tests.runs.report.sample import write_run
from tests.runs.test_programs import ORIGIN, PLAIN, a_run, report_on, run

OTHER = RewardProgram(subtasks=PLAIN.subtasks[::-1], provenance=ORIGIN.model_copy(update={"seed": 9, "splits": {}}))


def of_today(program: RewardProgram = PLAIN, **changed: Any) -> RewardProgram:
    """``program`` with all that its provenance holds once it is verified."""
    verdict = Verdict(digest=report_on(program).digest, accepted=True)
    known = {"program": program.id, "verdict": verdict, "splits": {"held-out-1": {"expert": 60}}, **changed}
    return program.model_copy(update={"provenance": program.provenance.model_copy(update=known)})


def edit_in_place(directory: Path) -> RewardProgram:
    content = json.loads((directory / "program.json").read_text())
    content["subtasks"][0]["weight"] = 5.0
    (directory / "program.json").write_text(json.dumps(content))
    return located(str(directory)).program


def test_a_program_that_was_edited_in_place_says_so_and_names_its_parent(tmp_path: Path) -> None:
    known = of_today()
    older = known.model_copy(update={"provenance": known.provenance.model_copy(update={"program": ""})})
    for name, program in (("today", known), ("older", older)):
        directory = a_run(tmp_path / name, program)
        child = edit_in_place(directory)
        assert child.id != PLAIN.id
        assert (child.provenance.origin, child.provenance.parent) == ("a model; edited by hand", PLAIN.id)
        assert (child.provenance.splits, child.provenance.verdict) == ({}, None)
        text = " ".join(run("program", "show", directory).split())
        assert f"by a model; edited by hand, the model scripted, prompts write/1, from {PLAIN.id}" in text
        child = with_verdict(child, HeldOut(2, report_on(child)), "DoorKey-5x5", 3)
        assert (child.provenance.parent, list(child.provenance.splits)) == (PLAIN.id, ["held-out-2"])
        assert RewardProgram.from_json(child.to_json()).provenance == child.provenance, "which it keeps"


def test_a_candidate_says_where_it_came_from(tmp_path: Path) -> None:
    directory = a_run(tmp_path / "run")
    (directory / "candidates").mkdir()
    content = {"number": 1, "proposer": "induction", "program": {**OTHER.model_dump(mode="json"), "provenance": None}}
    (directory / "candidates/01-x.json").write_text(json.dumps(content))
    assert "by induction, without a model" in run("program", "show", directory / "candidates/01-x.json")
    work = Work(get_task("DoorKey-5x5"), CodeConfig(task="DoorKey-5x5", seed=3), directory)
    kept = with_origin(work, Candidate(1, OTHER, report_on(OTHER), proposer="induction")).program.provenance
    assert (kept.program, kept.origin, kept.seed) == (OTHER.id, "induction, without a model", 3)
    assert kept.splits == {"search": {"expert": 60, "random": 200}}


def test_a_program_of_another_run_brings_no_episodes_and_names_the_one_it_replaces(tmp_path: Path) -> None:
    there, here = a_run(tmp_path / "there", of_today(OTHER, seed=9)), a_run(tmp_path / "here")
    run("program", "import", there, here)
    origin = located(str(here)).program.provenance
    assert (origin.splits, origin.verdict, origin.seed) == ({}, None, 3)
    assert (origin.replaced, origin.origin) == (PLAIN.id, "a model; of a run of DoorKey-5x5, seed 9")
    assert f"in place of {PLAIN.id}" in " ".join(run("program", "show", here).split())
    copied = with_verdict(of_today(OTHER, seed=9), HeldOut(1, report_on(OTHER)), "DoorKey-5x5", 3).provenance
    assert (copied.seed, copied.splits) == (3, {"held-out-1": {"expert": 60, "random": 200}}), "copied by hand"


def test_the_file_of_a_run_s_program_is_the_run_before_the_stage_verify(tmp_path: Path) -> None:
    directory = a_run(tmp_path / "run")
    (directory / "verification.json").unlink()
    (directory / "candidates").mkdir()
    held_out = {"set": 1, "report": report_on(PLAIN).model_dump(mode="json")}
    noted = {"program": PLAIN.model_dump(mode="json"), "held_out": held_out}
    (directory / f"candidates/01-{PLAIN.id}.json").write_text(json.dumps(noted))
    assert "accepted on 60 expert" in run("program", "show", directory / "program.json")
    assert "Ada approved" in run("program", "approve", directory / "program.json", "--by", "Ada")


def test_an_approval_on_another_verdict_is_refused_in_a_sentence(tmp_path: Path) -> None:
    strict, here = VerifyConfig(require_approval=True), tmp_path
    lax, verdict = report_on(PLAIN, share=0.4).digest, report_on(PLAIN).digest
    for changed in ({"verdict": lax}, {"verdict": verdict, "seed": 9}):
        approval = Approval(by="Ada", at="2026", program=PLAIN.id, **changed)
        with pytest.raises(ApprovalError, match=r"by Ada, was given on another verdict: .* approve it with .* again"):
            require_approval(of_today(approvals=(approval,)), strict, here, verdict)
    right = Approval(by="Ada", at="2026", program=PLAIN.id, verdict=verdict)
    require_approval(of_today(approvals=(right, approval)), strict, here, verdict)
    require_approval(of_today(verdict=None, approvals=(right,)), strict, here, verdict)
    shown = whence(PLAIN.id, of_today(approvals=(right.model_copy(update={"verdict": lax}),)).provenance.model_dump())
    assert "approved" not in shown


def test_editing_is_nobody_s_name() -> None:
    alone = PLAIN.model_copy(update={"provenance": Provenance(origin="edited by hand", parent="9060")})
    assert next(origin(alone.provenance)) == "edited by hand, from 9060"
    assert named(alone, "a").startswith(f"The program {PLAIN.id} is edited by hand, parent 9060.")


def test_a_note_of_the_search_is_about_the_program_that_it_found(tmp_path: Path) -> None:
    directory = a_run(tmp_path / "run", of_today())
    search = {"notes": ["Too weak to learn from?"], "program": PLAIN.id, "candidates": 4, "proposers": ["induction"]}
    (directory / "synthesis.json").write_text(json.dumps({**search, "spent": {"seconds": 2.0}, "usage": None}))
    assert found(directory)["search"]["notes"] == Run(Files(directory)).notes == search["notes"]
    child = edit_in_place(directory)
    (directory / "verification.json").write_text(report_on(child).to_json())
    result = found(directory)
    assert result["search"]["notes"] == Run(Files(directory)).notes == []
    assert _vlm(result).endswith(f"candidates tried: 4, program {PLAIN.id}, whose place {child.id} took.")
    assert notes_on(child.id, {"notes": ["a"]}, lambda: [PLAIN.id]) == [], "an older carl noted no program"
    assert notes_on(PLAIN.id, {"notes": ["a"]}, lambda: [PLAIN.id]) == ["a"]


def test_an_import_into_a_trained_run_is_warned_of_and_shown(tmp_path: Path) -> None:
    directory = a_run(tmp_path / "run", of_today())
    stages = {name: {"done": True, "seconds": 2.0, "made": "x"} for name in ("verify", "train", "evaluate")}
    (directory / "stages.json").write_text(json.dumps(stages))
    (directory / "result.json").write_text(json.dumps({"program_id": PLAIN.id}))
    (directory / "training/code").mkdir(parents=True)
    (directory / "training/code/training.json").write_text(json.dumps({"program": PLAIN.id}))
    (tmp_path / "other.json").write_text(OTHER.to_json())
    said = CliRunner().invoke(app, ["program", "import", str(tmp_path / "other.json"), str(directory)]).output
    assert f"{directory}/training/code holds a training with the program that was there before" in said.replace(
        "\n", ""
    )
    glance = look(str(directory))
    text = plain_text(picture(glance))
    assert not glance.over
    assert "to do again, 2 s" in text
    assert f"The program {OTHER.id} is not verified: `carl verify {directory}`" in text
    assert f"trainings are of the program {PLAIN.id}, whose place {OTHER.id} took" in text
    assert "no stage runs, last change" in text


def test_a_command_that_prints_an_old_result_says_of_which_program_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write_run(tmp_path / "run")
    result = json.loads((directory / "result.json").read_text())
    ended = SimpleNamespace(run=lambda _: result, doubts=[])
    monkeypatch.setattr("carl.runs.pipeline.Pipeline", lambda *_: ended)
    arguments = ["verify", "DoorKey-8x8", "--run-dir", str(directory)]
    assert "whose place" not in CliRunner().invoke(app, arguments).output
    (directory / "program.json").write_text(OTHER.to_json())
    said = " ".join(CliRunner().invoke(app, arguments).output.split())
    assert f"trainings are of the program {result['program_id']}, whose place {OTHER.id} took." in said


def test_a_run_that_waits_for_approval_says_so_and_how_until_it_is_given(tmp_path: Path) -> None:
    directory = a_run(tmp_path / "run", of_today())
    failed = {"error": "ApprovalError", "message": "approve it with `carl program approve`", "time": 0.0}
    stages = {"train": {"seconds": 120.0, "failed": failed}, "evaluate": {"seconds": 12.0, "undone": True}}
    (directory / "stages.json").write_text(json.dumps(stages))
    text = plain_text(picture(look(str(directory))))
    assert "waits for approval, 120 s" in text
    assert "to do again, 12 s" in text
    assert "approve it with `carl program approve`" in text
    assert "failed" not in text
    desk.approve(located(str(directory)), "Ada")
    assert "waits for approval" not in plain_text(picture(look(str(directory))))


def plain_text(shown: Any) -> str:
    console = Console(width=400, file=io.StringIO())
    console.print(shown)
    return console.file.getvalue()
