"""A run directory: which stages are done by what lies there, and who works in it."""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from carl.artefacts import CLAIM, LOCK, STATE
from carl.errors import CarlError, ConfigError, StoreError
from carl.methods import Stage
from carl.methods.arms import arm_of
from carl.methods.code import CodeConfig
from carl.program import RewardProgram, SubTask
from carl.runs import holding
from carl.runs import sweep as sweeping
from carl.runs.directory import RunDirectory
from carl.runs.grid import SweepConfig
from carl.runs.holding import Holder, claimed, held
from carl.runs.pipeline import Pipeline
from carl.runs.resolve import resolved
from carl.runs.stages import ORDER
from carl.runs.storage import Storage
from carl.tasks import get_task
from carl.training.checkpoint import Checkpoints, Progressed, check
from tests.fakes.finished import PROGRAM, Weights, leave, leave_training, write


def finished(directory: Path) -> RunDirectory:
    """A run whose stages are all done."""
    run = RunDirectory(resolved(CodeConfig(task="DoorKey-5x5", run_dir=directory), get_task("DoorKey-5x5")))
    for stage in ORDER:
        with run.stage(stage):
            leave(stage, run.config)
    return run


@contextmanager
def begun(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The stages that a pipeline begins in ``run``; each leaves what it always leaves."""
    stages: list[str] = []

    def do(self: Pipeline, stage: Stage[Any]) -> None:
        with self.dir.stage(stage.name):
            stages.append(stage.name)
            leave(stage.name, self.config)

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "_do", do)
        yield stages


@pytest.mark.parametrize(
    ("gone", "again"),
    [
        ("", []),
        ("trajectories", ["collect"]),
        ("trajectories/random", ["collect"]),
        ("program.json", ["synthesize"]),
        ("verification.json", ["verify"]),
        ("training/code/checkpoints", ["train"]),
        ("training/sparse/curve.jsonl", ["train"]),
        ("result.json", ["evaluate"]),
        ("training/sparse/episode", ["evaluate"]),
    ],
)
def test_what_is_deleted_is_made_again_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str, again: list[str]
) -> None:
    run = finished(tmp_path)
    if gone:
        path = tmp_path / gone
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with begun(run, monkeypatch) as stages:
        Pipeline(run.config).run()
    assert stages == [*again, "report"]
    assert all(run.done(stage) for stage in ORDER)


def test_a_setting_is_settled_by_the_stage_that_uses_it(tmp_path: Path) -> None:
    before = finished(tmp_path)
    verify = before.config.verify.model_copy(update={"require_approval": True})
    asked = before.config.model_copy(update={"verify": verify})
    said = r"verify\.require_approval=False there, True now \(train is done with it\)\. .*another --run-dir"
    with pytest.raises(ConfigError, match=said) as refused:
        RunDirectory(asked)
    assert "delete" not in str(refused.value)
    before._note("train", done=False)
    assert RunDirectory(asked).config.verify.require_approval
    wider = asked.model_copy(update={"verify": asked.verify.model_copy(update={"max_part": 0.5})})
    with pytest.raises(ConfigError, match=r"verify\.max_part=0\.02 there, 0\.5 now \(synthesize is done with it\)"):
        RunDirectory(wider)
    with pytest.raises(ConfigError, match=r"other settings: seed=0 there, 1 now\."):
        RunDirectory(asked.model_copy(update={"seed": 1}))


def test_an_episode_that_nobody_could_film_is_not_missed(tmp_path: Path) -> None:
    run = finished(tmp_path)
    shutil.rmtree(tmp_path / "training/sparse/episode")
    assert not run.done("evaluate")
    write(tmp_path, "result.json", {"evaluation": {"arms": {"sparse": {"filmed": False}}}})
    assert run.done("evaluate")
    shutil.rmtree(tmp_path / "training/code/episode")
    assert not run.done("evaluate"), "that arm was filmed"


def test_stages_after_one_that_made_something_else_are_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished(tmp_path)
    shutil.rmtree(tmp_path / "trajectories")
    monkeypatch.setattr("tests.fakes.finished.MANIFEST", {"parts": [{"lengths": [9]}]})
    with begun(run, monkeypatch) as stages:
        Pipeline(run.config).run()
    assert stages == list(ORDER)


def test_a_program_that_was_not_verified_is_neither_trained_on_nor_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished(tmp_path)
    edited = RewardProgram(subtasks=(SubTask(name="walk", code="def progress(frame, initial):\n    return 0.5"),))
    write(tmp_path, "program.json", edited.to_json())
    pipeline = Pipeline(run.config)
    for arm in ("code", "sparse+progress"):
        said = f"{edited.id}, not {PROGRAM.id}.*put that one back, or run `carl verify {tmp_path}`"
        with pytest.raises(ConfigError, match=said):
            pipeline._check_source(arm_of(arm))
    assert [stage for stage in ORDER if not run.done(stage)] == ["verify"], "what is there is kept until it is judged"
    write(tmp_path, "verification.json", {"accepted": True, "program_id": edited.id})
    with pipeline.dir.stage("verify"):
        pass
    assert not run.done("train")
    with pytest.raises(ConfigError, match=rf"training/code holds a training with the program {PROGRAM.id}"):
        pipeline._check_source(arm_of("code"))
    shutil.rmtree(tmp_path / "training")
    pipeline._check_source(arm_of("code"))


# Checkpoints


@pytest.mark.parametrize("damage", ["weights", "gone", "state", "empty", "curve"])
def test_a_checkpoint_that_cannot_be_used_is_passed_over_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    first, second = leave_training(tmp_path, 5, 1), leave_training(tmp_path, 10, 2)
    kept = Checkpoints(tmp_path / "checkpoints", tmp_path / "curve.jsonl")
    assert kept.latest() == second
    assert not caplog.records
    match damage:
        case "weights":
            (second / "algorithm/weights").write_text("0.6")
        case "gone":
            (second / "algorithm/weights").unlink()
        case "state":
            write(second, STATE, {"env_steps": "many"})
        case "empty":
            write(second, STATE, "")
        case "curve":
            write(tmp_path, "curve.jsonl", '{"env_steps": 1}\n')
    assert kept.latest() == kept.newest() == first
    (record,) = caplog.records
    assert f"{second} is passed over" in record.message
    if damage in ("weights", "gone", "empty"):
        with pytest.raises(CarlError, match=second.name):
            check(second)
    kept.save(Weights(), Progressed(env_steps=7, curve_points=1))
    assert [path.name[-2:] for path in sorted((tmp_path / "checkpoints").iterdir())] == ["05", "07"]


def test_a_checkpoint_of_an_older_carl_is_used_without_a_digest(tmp_path: Path) -> None:
    path = leave_training(tmp_path)
    state = json.loads((path / STATE).read_text())
    write(path, STATE, {key: value for key, value in state.items() if key != "sha256"})
    assert Checkpoints(tmp_path / "checkpoints").latest() == path


# Who works there


def test_a_directory_has_one_holder_and_its_name_is_said(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    with held(run.path):
        holder = f"process {os.getpid()} on {Holder().host}, since "
        for attempt in (lambda: held(run.path).__enter__(), lambda: Pipeline(run.config)):
            with pytest.raises(ConfigError, match=f"run is in use by {holder}.*: wait for it, stop it"):
                attempt()
    assert not (run.path / LOCK).exists()
    with held(run.path), held(tmp_path / "another"):
        pass
    assert not (tmp_path / "another").exists(), "it held nothing"


def test_a_sweep_holds_its_directory_and_a_trial_is_done_by_what_it_left(tmp_path: Path) -> None:
    sweep = SweepConfig.model_validate({"base": {"task": "DoorKey-5x5"}, "directory": tmp_path})
    with held(tmp_path), pytest.raises(ConfigError, match="is in use by process"):
        sweeping.run_sweep(sweep)
    trial = finished(tmp_path / "trial").config
    assert sweeping._done(trial)
    write(trial.directory, "result.json", "{")
    assert not sweeping._done(trial), "it is begun, and says what is wrong"
    with pytest.raises(ConfigError, match=r"result\.json is not what this carl wrote"):
        Pipeline(trial).run()


def test_a_holder_that_was_killed_leaves_the_directory_free(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from carl.runs.holding import held\n"
        "with held(Path(sys.argv[1])): print('in', flush=True); time.sleep(600)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "in\n"
        with pytest.raises(ConfigError, match=f"in use by process {child.pid} on "), held(tmp_path):
            pass
    finally:
        child.kill()
        child.communicate()
    assert (tmp_path / LOCK).exists()
    with held(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """A storage that knows no locks, as an object store; claims are renewed and grow old fast."""
    monkeypatch.setattr(Storage, "folder", None)
    monkeypatch.setattr(holding, "BEAT_S", 0.02)
    return Storage((tmp_path / "there").as_uri())


def test_a_copy_is_claimed_by_one_run_and_the_claim_is_renewed(far: Storage, tmp_path: Path) -> None:
    with claimed(far):
        first = far.changed([CLAIM])
        deadline = time.monotonic() + 30
        while far.changed([CLAIM]) == first and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(ConfigError, match=f"in use by process {os.getpid()} on "), claimed(Storage(far.uri)):
            pass
        assert far._files() == set(), "a claim is no part of a run"
    assert far.read(CLAIM) is None


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_the_claim_of_a_run_that_is_gone_is_taken_over(
    far: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    gone = Holder(pid=2**22 + 1) if where == "here" else Holder(host="elsewhere")
    far.write(CLAIM, gone.to_json())
    if where == "elsewhere":
        monkeypatch.setattr(holding, "STALE_S", 0.05)
    with caplog.at_level(logging.WARNING), claimed(far):
        assert Holder.read(far.read(CLAIM) or "").pid == os.getpid()  # type: ignore[union-attr]
    assert ("is taken over" in caplog.text) == (where == "elsewhere")


def test_a_run_whose_claim_was_taken_over_copies_no_more(far: Storage, tmp_path: Path) -> None:
    here = finished(tmp_path / "here").path
    with claimed(far):
        far.write(CLAIM, Holder(host="elsewhere").to_json())
        with pytest.raises(ConfigError, match="taken over by another run"):
            far.check_latest(here)
    assert Holder.read(far.read(CLAIM) or "").host == "elsewhere"  # type: ignore[union-attr]


def test_a_copy_in_a_folder_of_this_machine_is_held_as_the_folder_is(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(held(tmp_path))
        with pytest.raises(ConfigError, match="is in use by process"), claimed(Storage(tmp_path.as_uri())):
            pass
    with claimed(Storage(tmp_path.as_uri())), pytest.raises(ConfigError, match="in use"), held(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_no_claim_is_made_where_nothing_can_be_written() -> None:
    with pytest.raises((ConfigError, StoreError), match="/proc/carl"), claimed(Storage("file:///proc/carl")):
        pass
