"""A run that asks for a person's approval trains on nothing else, and goes on once there is one."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from carl.cli import app
from carl.errors import ApprovalError
from carl.program import RewardProgram
from carl.provenance import Approval
from carl.runs.directory import read_config
from carl.runs.pipeline import Pipeline
from carl.verification import VerificationReport
from tests.fakes.scripted_vlm import ScriptedVlm
from tests.runs.test_pipeline import LENGTH, SEARCH, answer, config

pytestmark = pytest.mark.usefixtures("ray_cluster")

LAX = {"min_experts": 4, "min_randoms": 20, "max_random_completion": 0.5, "max_part": 1.0}
SETTINGS = {"verify": LAX | {"require_approval": True}, "synthesis": {"samples": 2, "proposers": ["model"]}}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a verified program that nobody has approved."""
    directory = tmp_path_factory.mktemp("approval") / "run"
    with ScriptedVlm(answer).running() as vlm:
        Pipeline(config(directory, vlm.base_url, **SETTINGS)).run(SEARCH)
    return directory


@pytest.fixture
def run(searched: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(searched, tmp_path / "run"))


def approve(run: Path, program_id: str) -> None:
    program = RewardProgram.load(run / "program.json")
    assert program.provenance is not None
    verdict = VerificationReport.load(run / "verification.json").digest
    approval = Approval(by="Ada", at="2026-01-02T03:04:05+00:00", program=program_id, verdict=verdict, seed=0)
    origin = program.provenance.model_copy(update={"approvals": (approval,)})
    (run / "program.json").write_text(program.model_copy(update={"provenance": origin}).to_json())


def test_a_program_knows_where_it_came_from(run: Path) -> None:
    origin = RewardProgram.load(run / "program.json").provenance
    report = VerificationReport.load(run / "verification.json")
    assert origin is not None
    assert origin.verdict is not None
    assert (origin.task, origin.seed, origin.model) == ("Corridor", 0, "scripted")
    assert [prompt.partition("/")[0] for prompt in origin.prompts] == ["decompose", "write"]
    assert len(origin.pictures) == 16
    assert origin.splits["search"]["expert"] == origin.splits["held-out-1"]["expert"] == 4
    assert {"carl", "numpy", "gymnasium"} <= origin.versions.keys()
    assert (origin.verdict.digest, origin.verdict.accepted) == (report.digest, True)
    assert {"static_policy", "experts_complete"} <= set(origin.verdict.passed)
    assert not origin.approvals


def test_training_waits_for_an_approval(run: Path) -> None:
    settings = read_config(run)
    with pytest.raises(ApprovalError, match=r"nobody has approved .*`carl program approve .*the same command goes on"):
        Pipeline(settings).run()
    assert not (run / "training").exists()
    assert json.loads((run / "stages.json").read_text())["train"]["failed"]["error"] == "ApprovalError"

    approve(run, "0123456789abcdef")
    with pytest.raises(ApprovalError, match=r"by Ada, is for a changed source: it is of the program 0123456789abcdef"):
        Pipeline(settings).run()

    program = RewardProgram.load(run / "program.json")
    approve(run, program.id)
    Pipeline(settings).run(("train",))
    origin = RewardProgram.load(run / "program.json").provenance
    assert origin is not None
    subject = json.loads((run / "training/code/training.json").read_text())
    assert (subject["program"], subject["provenance"]) == (program.id, origin.model_dump(mode="json"))
    *_, newest = sorted((run / "training/code/checkpoints").glob("[0-9]*/state.json"))
    assert json.loads(newest.read_text())["provenance"] == subject["provenance"]
    Pipeline(settings).run(("train",))


def test_equal_judgements_share_a_digest(run: Path) -> None:
    report = VerificationReport.load(run / "verification.json")
    slower = report.model_copy(update={"seconds": report.seconds + 1})
    assert slower.digest == report.digest
    timed = report.checks[0].model_copy(update={"figures": {"frame_s": 1.0}, "message": "took 1 s"})
    retimed = timed.model_copy(update={"figures": {"frame_s": 2.0}, "message": "took 2 s"})
    first, second = (report.model_copy(update={"checks": (one, *report.checks[1:])}) for one in (timed, retimed))
    assert first.digest == second.digest != report.digest
    failed = retimed.model_copy(update={"passed": False})
    assert report.model_copy(update={"checks": (failed, *report.checks[1:])}).digest != first.digest


def carl(*arguments: str | Path) -> tuple[int, str]:
    found = CliRunner().invoke(app, [str(one) for one in arguments])
    return found.exit_code, " ".join(f"{found.exception or ''} {found.output}".split())


def test_an_edited_program_is_tried_then_imported_and_judged_on_held_out_episodes(run: Path, tmp_path: Path) -> None:
    folder, before = tmp_path / "mine", RewardProgram.load(run / "program.json")
    assert carl("program", "export", run, folder)[0] == 0
    (code,) = folder.glob("*.py")
    code.write_text(code.read_text().replace(str(LENGTH), "99"))
    files = sorted(run.rglob("*"))
    status, said = carl("program", "verify", folder, "--run", run)
    assert (status, sorted(run.rglob("*"))) == (1, files)
    assert "never gets done in 4 of 4 expert episodes" in said
    code.write_text(code.read_text().replace("99", f"({LENGTH})"))
    assert carl("program", "verify", folder, "--run", run)[0] == 0
    assert carl("program", "import", folder, run)[0] == 0
    assert "say on whose episodes, with --run or --task" in carl("program", "verify", folder)[1]
    status, said = carl("program", "verify", run)
    assert (status, "accepted on 4 expert" in said) == (0, True)
    child = RewardProgram.load(run / "program.json")
    assert child.provenance is not None
    assert (child.provenance.parent, list(child.provenance.splits)) == (before.id, ["held-out-1"])
    assert VerificationReport.load(run / "verification.json").program_id == child.id
    assert carl("program", "approve", run, "--by", "Ada")[0] == 0
    assert "/nowhere is neither a run, nor" in carl("program", "import", "/nowhere", run)[1]
