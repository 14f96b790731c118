"""Programs by hand: out as files, back in through the gate, compared, and what of them is refused in one sentence."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from carl.cli import app
from carl.errors import ApprovalError, CarlError, ConfigError, ProgramError
from carl.nano import programs
from carl.program import MAX_SUBTASKS, RewardProgram, SubTask
from carl.provenance import Approval, Provenance
from carl.runs.programs import desk
from carl.runs.programs.compare import differences, figures, matched
from carl.runs.programs.folder import read_folder, write_folder
from carl.runs.programs.located import located
from carl.verification import Check, VerificationReport

FIRST = "01-pick-up-the-key.py"
ORIGIN = Provenance(origin="a model", task="DoorKey-5x5", seed=3, model="scripted", prompts=("write/1",))
PROGRAM = RewardProgram(
    subtasks=(
        SubTask(name="pick up the key", description="The key is gone.", code=programs.PICK_UP_KEY),
        SubTask(name='open "the" door\n\x7f', code=programs.OPEN_DOOR.replace("\n", "\r\n").rstrip(), weight=1e-5),
        SubTask(name="¿…?", code=programs.REACH_GOAL),
    ),
    provenance=ORIGIN,
)
PLAIN = PROGRAM.model_copy(update={"subtasks": (PROGRAM.subtasks[0], PROGRAM.subtasks[2])})


def report_on(program: RewardProgram, accepted: bool = True, share: float = 0.02) -> VerificationReport:
    figures = {"share": share, "bound": share + 0.01, "interval": [0.0, 0.1], "episodes": 200}
    check = Check(name="random_completion", passed=accepted, message="4 of 200 complete it", figures=figures)
    return VerificationReport(
        program_id=program.id,
        accepted=accepted,
        checks=(Check(name="static_policy", passed=True, message="allowed", figures={"violations": 0}), check),
        episodes={"expert": 60, "random": 200},
        frames=900,
        seconds=1.0,
        unjudged={"lasting": "the task has no cut episodes"},
    )


def a_run(directory: Path, program: RewardProgram | None = PLAIN, **report: Any) -> Path:
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps({"task": "DoorKey-5x5", "seed": 3}))
    if program:
        (directory / "program.json").write_text(program.to_json())
        (directory / "verification.json").write_text(report_on(program, **report).to_json())
    return directory


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def run(*arguments: str | Path) -> str:
    found = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


def test_an_exported_folder_gives_back_the_very_program(tmp_path: Path) -> None:
    files = write_folder(PLAIN, tmp_path / "plain")
    assert [path.name for path in files] == ["01-pick-up-the-key.py", "02-sub-task.py"]
    assert files[0].read_text() == programs.PICK_UP_KEY
    assert 'name = "¿…?"' in (tmp_path / "plain/program.toml").read_text()
    back = read_folder(tmp_path / "plain")
    assert (back.id, back, back.provenance) == (PLAIN.id, PLAIN, ORIGIN)
    with pytest.raises(ConfigError, match="holds something already"):
        write_folder(PLAIN, tmp_path / "plain")


letters = st.characters(exclude_categories=["Cs", "Cc"])
texts = st.text(letters | st.sampled_from("\x7f\"\\'"), min_size=1, max_size=20)
subtasks = st.builds(
    SubTask,
    name=st.text(letters, min_size=1, max_size=20).filter(str.isprintable),
    description=st.text(max_size=20).filter(lambda text: text.encode(errors="ignore").decode() == text),
    source=texts.map(lambda text: f"{programs.PICK_UP_KEY}# {text}\r"),
    weight=st.floats(1e-300, 1e300),
)


@settings(max_examples=25)
@given(st.lists(subtasks, min_size=1, max_size=MAX_SUBTASKS).map(tuple), st.booleans())
def test_any_program_survives_its_folder(subtasks: tuple[SubTask, ...], ordered: bool) -> None:
    program = RewardProgram(subtasks=subtasks, ordered=ordered)
    with tempfile.TemporaryDirectory() as folder:
        write_folder(program, Path(folder) / "a")
        assert read_folder(Path(folder) / "a").id == program.id


def test_an_edited_program_knows_its_parent(tmp_path: Path) -> None:
    write_folder(PLAIN, tmp_path / "a")
    edit(tmp_path / "a/program.toml", "weight = 1.0", "weight = 2")
    child = read_folder(tmp_path / "a")
    assert (child.provenance.parent, child.provenance.origin) == (PLAIN.id, "a model; edited by hand")
    assert child.provenance.model == "scripted"
    assert [one.weight for one in child.subtasks] == [2.0, 2.0]
    write_folder(child, tmp_path / "b")
    edit(tmp_path / "b/01-pick-up-the-key.py", "def progress", "\ndef progress")
    grandchild = read_folder(tmp_path / "b")
    assert (grandchild.provenance.parent, grandchild.provenance.origin) == (child.id, "a model; edited by hand")


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (FIRST, "def progress(frame, initial):\n    return (1.0\n", r"/01-pick-up-the-key\.py, line 2: .*; correct it"),
        (FIRST, "import os\ndef progress(frame, initial):\n    return 1.0\n", r"01-pick-up-the-key\.py, line 1: .*os"),
        (FIRST, "", r"sub-task 01-pick-up-the-key\.py: "),
        ("03-more.py", "x = 1\n", r"does not name 03-more\.py"),
        ("program.toml", "ordered = maybe\n", r"program\.toml is not TOML: .*line 1"),
        ("program.toml", "ordered = true\n", "lists no sub-tasks"),
        ("program.toml", '[[subtasks]]\nname = "a"\nfile = "../a.py"\n', "needs a file beside it"),
        ("program.toml", '[[subtasks]]\nname = "a"\nfile = "9.py"\n', r"9\.py, which program\.toml names, cannot be"),
        ("provenance.json", "[]", r"provenance\.json is not what carl wrote"),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_program_is_refused_in_a_sentence(tmp_path: Path, file: str, text: str, said: str) -> None:
    write_folder(PLAIN, tmp_path / "a")
    (tmp_path / "a" / file).write_text(text)
    with pytest.raises(ProgramError, match=said) as found:
        read_folder(tmp_path / "a")
    assert "\n" not in str(found.value)


def test_a_wrong_weight_names_the_sub_task(tmp_path: Path) -> None:
    write_folder(PLAIN, tmp_path / "a")
    edit(tmp_path / "a/program.toml", "weight = 1.0", "weight = -1.0")
    with pytest.raises(ProgramError, match=r"program\.toml, sub-task 01-pick-up-the-key\.py: weight: -1\.0"):
        read_folder(tmp_path / "a")


def test_a_program_is_found_in_a_run_a_file_a_candidate_and_a_folder(tmp_path: Path) -> None:
    directory = a_run(tmp_path / "run")
    (directory / "candidates").mkdir()
    held_out = {"set": 1, "report": report_on(PLAIN, share=0.03).model_dump(mode="json")}
    candidate = {"program": PLAIN.model_dump(mode="json"), "report": {}, "held_out": held_out}
    (directory / "candidates/02-x.json").write_text(json.dumps(candidate))
    (directory / "candidates/answer-01.json").write_text(json.dumps({"rejected": "no code block", "answer": "Sure!"}))
    write_folder(PLAIN, tmp_path / "folder")
    uri = directory.as_uri()
    for name in (directory, directory / "program.json", directory / "candidates/02-x.json", tmp_path / "folder", uri):
        assert located(str(name)).program.id == PLAIN.id
    assert located(str(directory)).run == directory
    assert located(uri).run is None
    assert located(uri).report == report_on(PLAIN)
    assert located(str(directory / "candidates/02-x.json")).report == report_on(PLAIN, share=0.03)
    with pytest.raises(ConfigError, match=r"never became a program: no code block"):
        located(str(directory / "candidates/answer-01.json"))
    with pytest.raises(ConfigError, match="neither a run, nor a program's file"):
        located(str(tmp_path))
    with pytest.raises(ConfigError, match="there is no file"):
        located(str(tmp_path / "gone.json"))
    (directory / "program.json").unlink()
    with pytest.raises(
        ConfigError, match=rf"holds no program yet: `carl run {directory}` makes one; what was tried is"
    ):
        located(str(directory))


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("junk.json", b'{"x": 1}', "it has no subtasks"),
        ("list.json", b"[1]", "a list where a dict should be"),
        ("cut.json", PLAIN.to_json()[:50].encode(), "Unterminated string"),
        ("binary.json", b"\x89PNG", "can't decode byte 0x89"),
        ("empty.json", b"", "Expecting value"),
        ("wrong.json", b'{"subtasks": []}', "subtasks: .* should have at least 1 item"),
        ("run/verification.json", None, "it has no subtasks"),
        ("run/config.json", None, "it has no subtasks"),
    ],
)
def test_a_file_that_is_no_program_is_called_that_and_nothing_is_to_be_deleted(
    tmp_path: Path, file: str, content: bytes | None, why: str
) -> None:
    a_run(tmp_path / "run")
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(
        ProgramError, match=rf"{file} is no reward program \(.*{why}.*\): those are program\.json"
    ) as said:
        located(str(tmp_path / file))
    assert "delete" not in str(said.value)
    assert "--run-dir" not in str(said.value)


def test_a_damaged_program_of_a_run_can_be_made_again(tmp_path: Path) -> None:
    (a_run(tmp_path / "run") / "program.json").write_text("{")
    with pytest.raises(CarlError, match="correct it, or delete it to have it written again"):
        located(str(tmp_path / "run/program.json"))


def test_what_is_no_directory_is_no_run(tmp_path: Path) -> None:
    directory = a_run(tmp_path / "run")
    (tmp_path / "my_tasks.py").write_text("TASK = 1\n")
    (tmp_path / "d.json").mkdir()
    for name in ("my_tasks.py", "my_tasks.py/", "my_tasks.py/deeper", "d.json", "gone"):
        with pytest.raises(ConfigError, match="is neither a run, nor a program's file"):
            located(str(tmp_path / name))
    with pytest.raises(ConfigError, match="there is no file"):
        located(str(tmp_path / "my_tasks.py/x.json"))
    assert located(f"{directory}/program.json/").program.id == PLAIN.id
    directory.rename(tmp_path / "run.json")
    assert located(str(tmp_path / "run.json")).run == tmp_path / "run.json"


def test_sub_tasks_are_compared_by_name_and_then_by_position() -> None:
    first, last = PLAIN.subtasks
    other = RewardProgram(
        subtasks=(last.model_copy(update={"weight": 2.0}), first.model_copy(update={"name": "take it"}))
    )
    assert matched(PLAIN, other) == [(0, None), (1, 0), (None, 1)]
    renamed = RewardProgram(subtasks=(first.model_copy(update={"name": "take the key"}), last))
    assert matched(PLAIN, renamed) == [(0, 0), (1, 1)]
    changed = differences(PLAIN, renamed, ("a", "b"))
    assert "--- a, 1. pick up the key" in changed
    assert "-# 1. pick up the key\n+# 1. take the key\n" in changed
    assert "2. ¿…?" not in changed
    assert differences(PLAIN, PLAIN, ("a", "b")) == ""


def test_an_imported_program_takes_the_place_of_the_run_s_and_the_earlier_one_is_kept(tmp_path: Path) -> None:
    directory, folder = a_run(tmp_path / "run"), tmp_path / "folder"
    run("program", "export", directory, folder)
    assert "holds the program" in run("program", "import", folder, directory)
    assert located(str(directory)).report, "an unchanged program keeps its verdict"
    edit(folder / "program.toml", "weight = 1.0", "weight = 3.0")
    run("program", "import", folder, directory)
    child = RewardProgram.load(directory / "program.json")
    assert child.provenance.parent == PLAIN.id
    assert json.loads((directory / "stages.json").read_text())["synthesize"]["done"], "no search replaces it"
    assert located(str(directory)).report is None
    held_out = {"set": 2, "report": report_on(child).model_dump(mode="json")}
    noted = directory / f"candidates/02-{child.id}.json"
    noted.write_text(json.dumps({"program": child.model_dump(mode="json"), "held_out": held_out}))
    assert located(str(directory)).report == report_on(child), "as the search judged it"
    noted.unlink()
    kept = located(str(directory / f"candidates/replaced-{PLAIN.id}.json"))
    assert (kept.program.id, kept.report) == (PLAIN.id, report_on(PLAIN))
    with pytest.raises(ApprovalError, match=r"is not verified: run `carl program verify"):
        desk.approve(located(str(directory)), "Ada")
    edit(folder / "program.toml", "weight = 3.0", "weight = 4.0")
    run("program", "import", folder, directory)
    unjudged = json.loads((directory / f"candidates/replaced-{child.id}.json").read_text())
    assert "before it was verified" in unjudged["rejected"]
    run("program", "import", folder, tmp_path / "alone.json")
    assert RewardProgram.load(tmp_path / "alone.json").subtasks[0].weight == 4.0
    with pytest.raises(ConfigError, match="holds something else: give the name of a new file"):
        desk.put(PLAIN, tmp_path / "alone.json")
    with pytest.raises(ConfigError, match="holds no run: `carl collect TASK"):
        desk.put(PLAIN, tmp_path / "nowhere")


def test_an_approval_says_who_when_and_of_what(tmp_path: Path) -> None:
    directory = a_run(tmp_path / "run")
    assert "Ada approved the program" in run("program", "approve", directory, "--by", "Ada", "--note", "looks right")
    program = RewardProgram.load(directory / "program.json")
    (approval,) = program.provenance.approvals
    assert approval == Approval(
        by="Ada", at=approval.at, program=PLAIN.id, verdict=report_on(PLAIN).digest, note="looks right", seed=3
    )
    assert approval.at.endswith("+00:00")
    assert program.approval == approval
    run("program", "approve", directory, "--by", "Ada", "--note", "looks right")
    assert RewardProgram.load(directory / "program.json").provenance.approvals == (approval,), "once is enough"
    assert "approved by Ada" in run("program", "show", directory)
    (directory / "verification.json").write_text(report_on(PLAIN, share=0.03).to_json())
    assert f"the verdict was {approval.verdict} then" in run("program", "show", directory)
    (directory / "verification.json").write_text(report_on(PLAIN, accepted=False).to_json())
    with pytest.raises(ApprovalError, match=r"the gate refused the program .*: 4 of 200"):
        desk.approve(located(str(directory)), "Ada")
    with pytest.raises(ApprovalError, match="not the directory of a run"):
        desk.approve(located(directory.as_uri()), "Ada")


def test_show_and_diff_print_code_verdict_bounds_and_origin(tmp_path: Path) -> None:
    left, right = a_run(tmp_path / "left"), tmp_path / "right"
    shutil.copytree(left, right)
    text = run("program", "show", left)
    came = "a model, the model scripted, prompts write/1"
    judged = ("accepted on 60 expert, 200 random episodes", "3\u00a0%", "not judged: lasting")
    for said in (PLAIN.id, came, *judged, "nobody has approved it", "1 pick up the key", "def progress"):
        assert said in text, said
    checks = [line.split() for line in text.splitlines() if " passed " in line]
    assert [line[0] for line in checks] == ["static", "random"], "a line for each check where there is no terminal"
    assert not any(line.endswith(" ") for line in text.splitlines())
    run("program", "export", left, tmp_path / "folder")
    edit(tmp_path / "folder/01-pick-up-the-key.py", "def progress", "# by hand\ndef progress")
    run("program", "import", tmp_path / "folder", right)
    text = run("diff", left, right)
    assert text == run("program", "diff", left, right)
    for said in ("+# by hand", "random completion", "not verified", "60 expert, 200 random"):
        assert said in text, said
    text = run("diff", left, left)
    assert "The code is the same." in text
    assert "Alike in both: 2 of 2 checks." in text
    text = run("diff", left, a_run(tmp_path / "other", share=0.03))
    assert "Alike in both: 1 of 2 checks." in text
    assert "random completion" in text
    assert "static policy" not in text
    rows = figures(report_on(PLAIN), None)
    assert rows[1].left.endswith(", bound 3\u00a0%"), "as program show and the report have it"
