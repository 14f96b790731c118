"""Every file of a run, damaged in every way: whoever reads it says in one sentence which it is and what to do."""

import ast
import copy
import json
import logging
import math
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import carl
from carl.artefacts import (
    ASKED,
    CANDIDATES,
    CHECKPOINTS,
    EPISODE,
    STATE,
    TABLE,
    TRAINING,
    TRAJECTORIES,
    Copied,
    artefact,
    remedy,
)
from carl.cli import app
from carl.console.progress import silent
from carl.episodes.trajectory import TrajectoryStore
from carl.errors import CarlError, ConfigError
from carl.methods import code
from carl.methods.arms import arm_of, arms_of
from carl.methods.code import CodeConfig
from carl.runs.directory import RunDirectory
from carl.runs.files import Files
from carl.runs.grid import SweepConfig
from carl.runs.pipeline import Pipeline
from carl.runs.reader import Notes, Run
from carl.runs.report import build_report, context
from carl.runs.report.sweep import write_sweep
from carl.runs.result import assemble
from carl.runs.screen import picture
from carl.runs.stages import ORDER, training
from carl.runs.storage import Storage
from carl.runs.watch import look
from carl.synthesis.ledger import Ledger
from carl.tasks import get_task
from carl.training.abstains import EXIT_STATUS
from carl.training.checkpoint import Checkpoints, Progressed, check
from carl.training.curve import truncate
from carl.verification.report import VerificationReport
from carl.vlm.exchange import Recording
from tests.fakes.finished import Weights, write
from tests.runs.report.sample import PROGRAM, TASK, traced, write_run

ARM = "training/code"
CHECKPOINT = f"{ARM}/checkpoints/{9:012d}"
JUDGED = "candidates/03-good.json"
HELD_OUT = f"candidates/held-out-1-{PROGRAM.id}.json"
"""A verdict on held-out episodes as an older carl left it."""

REPORT = VerificationReport(
    program_id=PROGRAM.id, accepted=True, checks=(), episodes={"expert": 3, "random": 2}, frames=9, seconds=1.0
).model_dump(mode="json")
EXCHANGE = {
    **{"digest": "d", "model": "m", "prompt": "p", "messages": [], "answers": ["a\u2028b"], "error": None},
    "draw": {"n": 1, "temperature": 0.0, "max_tokens": 9, "seed": 0},
    "usage": {"calls": 1, "samples": 1, "prompt_tokens": 1, "completion_tokens": 1, "seconds": 0.5},
}
POINT = {"env_steps": 9, "seconds": 1.0, "success_rate": 0.5, "mean_return": 1.0, "reward_version": 1, "reward": {}}


def pipeline_in(run: Path) -> Pipeline:
    """A pipeline in mid-run: one that is begun checks more, and would say what is wrong before the stage does."""
    made = Pipeline.__new__(Pipeline)
    made.config, made.task = CodeConfig(task=TASK, seed=7, run_dir=run), get_task(TASK)
    made._progress, made.method = silent, code.CODE
    made.dir = RunDirectory.__new__(RunDirectory)
    made.dir.path, made.dir.config = run, made.config
    return made


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is over, with every file that there can be."""
    path = write_run(tmp_path_factory.mktemp("finished") / "run")
    write(path, "synthesis/exchanges.jsonl", json.dumps(EXCHANGE, ensure_ascii=False) + "\n")
    write(path, "synthesis.json", {"candidates": 3, "stopped": "accepted", "usage": EXCHANGE["usage"]})
    write(path, "verification.json", REPORT)
    write(path, HELD_OUT, {"program": PROGRAM.model_dump(mode="json"), "report": REPORT})
    verdict = {"program": PROGRAM.model_dump(mode="json"), "report": REPORT, "held_out": {"set": 1, "report": REPORT}}
    write(path, JUDGED, verdict)
    write(path, "copy.json", {"copies": 1})
    run = RunDirectory(CodeConfig(task=TASK, seed=7, run_dir=path))
    with run.stage("verify"):
        pass
    for arm in arms_of(run.config):
        folder = path / "training" / arm.name
        progressed = Progressed(env_steps=9, iterations=1, curve_points=1, reward_version=1)
        write(folder, "curve.jsonl", json.dumps(POINT) + "\n")
        write(folder, "live.json", asdict(progressed))
        with training(pipeline_in(path).work, arm) as begun:
            begun.begin()
        Checkpoints(folder / "checkpoints").save(Weights(), progressed)
        if arm.name != "code":
            shutil.copytree(path / ARM / "episode", folder / "episode")
    for stage in ORDER:
        with run.stage(stage):
            pass
    assert all(run.done(stage) for stage in ORDER)
    return path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


MAPPINGS = (
    *("config.json", "stages.json", "program.json", "verification.json", "result.json", "synthesis.json", "copy.json"),
    *(f"{ARM}/live.json", f"{ARM}/training.json", f"{CHECKPOINT}/{STATE}", JUDGED, HELD_OUT),
    "trajectories/expert/manifest.json",
)
LINES = ("synthesis/exchanges.jsonl", f"{ARM}/curve.jsonl", f"{ARM}/watch.jsonl")
BINARY = ("trajectories/expert/*.parquet", f"{CHECKPOINT}/algorithm/weights")
PATIENT = ("synthesis/pairs.npz", "candidates/02-naive.json")
"""Files that the report alone reads."""


def other_values(content: bytes) -> dict[str, str]:
    """The names in the first line, or in all, of JSON, each with a text where a number may have been."""
    try:
        tree = json.loads(content.splitlines()[0] if content[:2] != b"{\n" else content)
    except ValueError:
        tree = {}
    return dict.fromkeys(tree if isinstance(tree, dict) else {}, "x")


def test_the_table_says_what_holds_of_each_file_of_a_run(run: Path) -> None:
    names = [path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()]
    known = {artefact(name).pattern for name in names}
    assert {row.pattern for row in TABLE} - known <= {"run.lock", "claim.json", "report.html", "*"}
    assert {name for name in names if artefact(name).copied is Copied.COMPLETING} == {
        name for name in names if name.endswith(("manifest.json", STATE))
    }
    assert remedy(f"/data/training/{CHECKPOINT}/../../curve.jsonl") == "delete it to train that arm again"
    assert remedy("s3://bucket/trajectories/copy.json?region=x").startswith("delete it where it is damaged")
    assert remedy("anything else") == "correct it, or give another file", "it may be a person's own"


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
    "of another type": lambda _: b"[7]\n",
    "of no text": lambda _: b"\xff\xfe\n",
    "of other values": lambda content: json.dumps(other_values(content)).encode() + b"\n",
    "of another version": lambda _: b'{"what": {"another": "version writes"}}\n',
}


def damage(run: Path, name: str, how: str) -> Path:
    (path,) = run.glob(name)
    path.write_bytes(DAMAGES[how](path.read_bytes()))
    return path


def readers(run: Path) -> Iterator[Callable[[], object]]:
    """All that reads a run: the commands, and what the stages read when they are begun."""
    for command in (["show", str(run)], ["run", TASK, "--run-dir", str(run)]):
        yield lambda command=command: CliRunner().invoke(app, command, catch_exceptions=False)  # type: ignore[misc]
    pipeline = pipeline_in(run)

    def begin_training() -> None:
        with training(pipeline.work, arm_of("code")) as begun:
            begun.begin()

    arm = {"headline": "sampled", "sampled": {}, "env_steps": 1, "env_steps_per_s": 1.0, "abstains": 0}
    arms = {"code": arm | {"counts": {}, "rework_steps": 0}}
    checkpoints = Checkpoints(run / ARM / "checkpoints", run / ARM / "curve.jsonl")
    yield begin_training
    yield lambda: pipeline._check_source(arm_of("code"))
    yield Ledger(run / "candidates").verdicts
    yield lambda: assemble(pipeline.work, arms)  # type: ignore[arg-type]
    yield lambda: Recording(run / "synthesis/exchanges.jsonl")
    yield lambda: TrajectoryStore(run / "trajectories/expert").read()
    yield checkpoints.latest
    yield lambda: Progressed.read(run / ARM / "live.json")
    yield lambda: check(run / CHECKPOINT)
    yield lambda: Storage(run.as_uri()).check_latest(run)


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", [*MAPPINGS, *LINES, *BINARY])
def test_whoever_reads_a_damaged_file_names_it_in_one_sentence(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, how: str
) -> None:
    monkeypatch.setattr(Pipeline, "_do", lambda self, stage: None)
    path = damage(run, name, how)
    said = []
    for read in readers(run):
        try:
            read()
        except CarlError as error:
            said.append(str(error))
    said += [record.getMessage() for record in caplog.records]
    assert all("\n" not in text and "pydantic" not in text for text in said), said
    named = [text for text in said if str(path) in text or str(path.parent) in text or f"{path.parents[1]} is" in text]
    harmless = how in ("empty", "truncated") and name in (LINES[0], LINES[2])  # its last line is being written
    assert harmless or any(": " in text or "; " in text for text in named), said


@pytest.mark.parametrize("content", [{}, {"iterations": 3}])
def test_a_checkpoint_without_its_steps_is_damaged(run: Path, content: dict[str, int]) -> None:
    write(run, f"{CHECKPOINT}/{STATE}", content)
    checkpoints = Checkpoints(run / ARM / "checkpoints")
    path = run / CHECKPOINT / STATE
    problem = checkpoints.problem(run / CHECKPOINT)
    assert problem == f"{path} is not what this carl wrote (env_steps is missing): {remedy(str(path))}"
    assert checkpoints.newest() is None


@pytest.mark.parametrize("how", DAMAGES)
def test_a_report_names_every_damaged_file_and_goes_without_it(
    run: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    unread = ("config.json", "stages.json", "copy.json", f"{ARM}/live.json", f"{ARM}/training.json")
    names = [*LINES, *PATIENT, BINARY[0], *(name for name in MAPPINGS if name not in unread and STATE not in name)]
    paths = [damage(run, name, how) for name in names]
    with caplog.at_level(logging.WARNING):
        assert build_report(run, lambda program, trajectory: traced(program, trajectory)).exists()
    if how not in ("of another version", "of other values"):  # of which the report shows what it knows
        quiet = [path.name for path in paths if path.name not in caplog.text and path.suffix == ".json"]
        assert set(quiet) <= {path.name for path in paths if "expert" in str(path)}, quiet


def spelled(path: Path) -> Iterator[str]:
    """Names of files and folders of a run directory in the strings of a module that are no documentation."""
    tree = ast.parse(path.read_text())
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    files = {row.pattern.rpartition("/")[2] for row in TABLE} - {"*", "*.json"}
    folders = (ASKED, CANDIDATES, TRAJECTORIES, TRAINING, CHECKPOINTS, EPISODE)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield from (name for name in files if re.search(rf"{re.escape(name)}(?![\w.])", node.value))
            yield from (f"{name}/" for name in (ASKED, CANDIDATES, TRAJECTORIES) if node.value.startswith(f"{name}/"))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            parts = [part.values[0] if isinstance(part, ast.JoinedStr) else part for part in (node.left, node.right)]
            texts = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            yield from (text for text in texts if text.partition("/")[0] in folders)


def test_no_name_of_a_file_is_spelled_but_in_the_table() -> None:
    """``config.json`` of a model of Hugging Face is another file."""
    root = Path(carl.__file__).parent
    found = {
        (path.relative_to(root).as_posix(), name)
        for path in root.rglob("*.py")
        if path != root / "artefacts.py"
        for name in spelled(path)
    }
    assert found == {("serving/weights.py", "config.json")}
    assert set(spelled(root / "artefacts.py")) >= {"config.json", "curve.jsonl", "manifest.json"}


def places(tree: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to each value of JSON; of a list to its first."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree[:1]) if isinstance(tree, list) else ()
    for key, value in inner:
        yield (*above, key)
        yield from places(value, (*above, key))


WRONG = ("x", [7], {"a": 1}, True, math.nan, math.inf, 10**400)


@pytest.mark.parametrize(
    "name", ["result.json", f"{ARM}/curve.jsonl", f"{ARM}/watch.jsonl", f"{ARM}/live.json", "verification.json"]
)
def test_whatever_value_is_wrong_nothing_but_a_sentence_comes_of_it(run: Path, name: str) -> None:
    for folder in ("trajectories", "candidates", "synthesis"):
        shutil.rmtree(run / folder)
    whole = json.loads((run / name).read_text().partition("}\n{")[0] + "}" * (name == LINES[2]))
    if arms := whole.get("evaluation", {}).get("arms"):
        whole["verification"], whole["evaluation"]["arms"] = {}, {"code": arms["code"]}
    for number, keys in enumerate(places(whole)):
        tree = copy.deepcopy(whole)
        inner = tree
        for key in keys[:-1]:
            inner = inner[key]
        for value in (WRONG[number % len(WRONG)], WRONG[(number + 3) % len(WRONG)]):
            inner[keys[-1]] = value
            (run / name).write_text(json.dumps(tree) + "\n")
            notes, watched = Notes(), Notes()
            context(Run(Files(run), notes), lambda program, trajectory: None, notes)
            watched(lambda: picture(look(str(run))))
            assert all(str(run / name) in note and "\n" not in note for note in [*notes, *watched]), keys


def test_a_curve_that_is_a_folder_is_one_sentence(run: Path) -> None:
    curve = run / ARM / "curve.jsonl"
    curve.unlink()
    curve.mkdir()
    said = rf"{curve} is not what this carl wrote \(.*Is a directory.*\): delete it to train that arm again"
    with pytest.raises(ConfigError, match=said):
        Checkpoints(run / ARM / "checkpoints", curve).latest()
    with pytest.raises(ConfigError, match=said):
        truncate(curve, 1)
    with pytest.raises(ConfigError, match=said):
        look(str(run))


def test_a_sweep_names_the_files_of_trials_that_it_cannot_use(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    sweep = SweepConfig.model_validate({"base": {"task": TASK}, "seeds": [0], "directory": run.parent})
    (trial,) = sweep.trials()
    run.rename(trial.config.directory)
    for name in ("result.json", f"{ARM}/curve.jsonl"):
        damage(trial.config.directory, name, "of another type")
    (row,) = write_sweep(sweep, {})
    assert "result.json is not what this carl wrote" in row["failed"][0]
    assert "curve.jsonl is not what this carl wrote" in caplog.text


def test_a_sweep_says_which_trials_could_too_often_not_be_judged(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = SweepConfig.model_validate({"base": {"task": TASK}, "seeds": [0], "directory": run.parent})
    (trial,) = sweep.trials()
    result = json.loads((run / "result.json").read_text())
    result["evaluation"]["arms"]["code"] |= {"abstaining": 3, "iterations": 5}
    write(run, "result.json", result)
    run.rename(trial.config.directory)
    (row,) = write_sweep(sweep, {})
    assert row["doubtful"][0].startswith("code reward: in 3 of 5 training iterations more than 10%")
    write(run.parent, "sweep.yaml", json.dumps({"base": {"task": TASK}, "directory": str(run.parent)}))
    monkeypatch.setattr("carl.runs.sweep.run_sweep", lambda plan, progress: [row])
    found = CliRunner().invoke(app, ["sweep", str(run.parent / "sweep.yaml")])
    assert found.exit_code == EXIT_STATUS
    assert "in 3 of 5" in found.output


def test_a_run_whose_files_are_whole_reads_without_a_word(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun: list[str] = []
    monkeypatch.setattr(Pipeline, "_do", lambda self, stage: begun.append(stage.name))
    for read in readers(run):
        read()
    assert not caplog.records
    assert set(begun) == {"report"}
