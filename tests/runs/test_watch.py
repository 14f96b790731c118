"""A run seen from its files: how far it is, whatever wrote them and wherever they lie."""

import json
import os
import time
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from carl.artefacts import STAGES
from carl.cli import _found, app
from carl.errors import ConfigError, StoreError, VlmError
from carl.methods.code import CodeConfig
from carl.program import RewardProgram, SubTask
from carl.provenance import Provenance
from carl.runs import directory as rundir
from carl.runs import watch
from carl.runs.directory import RunDirectory
from carl.runs.screen import picture
from carl.runs.storage import Storage
from carl.runs.watch import follow, look
from carl.training.checkpoint import Progressed


def point(steps: int, seconds: float, **counts: int) -> dict[str, Any]:
    named = {key.replace("_", ":"): count for key, count in counts.items() if key[-1].isdigit()}
    rest = {key: count for key, count in counts.items() if not key[-1].isdigit()}
    said = {"success_rate": steps / 10_000, "mean_return": 1.5, "reward_version": 2}
    return {"env_steps": steps, "seconds": seconds, "reward": named | rest, **said}


FIRST = point(1_000, 1.0, begun=100, fired_1=10, fired_2=0, cache_hits=10, cache_misses=90, abstains=3)
SECOND = point(4_000, 3.0, begun=200, fired_1=100, fired_2=15, cache_hits=90, cache_misses=110, abstains=5)
USAGE = {"calls": 1, "samples": 8, "prompt_tokens": 700, "completion_tokens": 40, "seconds": 1.5}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run in mid-training whose driver was killed."""
    made = RunDirectory(CodeConfig(task="DoorKey-8x8", seed=3, run_dir=tmp_path / "a run"))
    for stage in ("collect", "synthesize", "verify"):
        with made.stage(stage):
            pass
    made.write("program.json", {"subtasks": [{"name": "pick up the key"}, {"name": "open the door"}]})
    lines(made / "synthesis/exchanges.jsonl", {"usage": USAGE}, {"usage": USAGE})
    lines(made / "training/code/curve.jsonl", FIRST, SECOND)
    made.write(STAGES, made.read(STAGES) | {"train": {"done": False, "seconds": 60.0, "since": time.time() - 5}})
    return made


def lines(path: Path, *records: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def shown(where: object) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(picture(look(str(where))))
    return console.file.getvalue()  # type: ignore[attr-defined]


def row(text: str, name: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.strip().startswith(name))
    return [cell for cell in line.strip().removeprefix(name).split("  ") if cell.strip()]


def test_a_glance_shows_what_happened_since_the_point_before(run: RunDirectory) -> None:
    text = shown(run.path)
    assert "DoorKey-8x8, seed 3" in text
    assert [cell.strip() for cell in row(text, "code reward")] == [
        *("4,000", "1,500"),
        *("-", "0.400", "1.50"),
        *("2", "80%", "5 abstains"),
    ]
    assert [cell.strip() for cell in row(text, "1 pick up the key")] == ["30.00", "50%"]
    assert [cell.strip() for cell in row(text, "2 open the door")] == ["5.00", "8%"]
    assert "2 requests, 16 samples (1,400 tokens in, 80 out, 3.0 s)" in text
    assert "runs, 65 s" in text


def test_a_glance_counts_episodes_that_were_cut(run: RunDirectory) -> None:
    lines(run / "training/code/curve.jsonl", point(1_000, 1.0, cut=2))
    assert "2 episodes cut" in row(shown(run.path), "code reward")[-1]


def test_between_two_points_it_shows_how_far_the_training_is(run: RunDirectory) -> None:
    played = ({"episodes": one["env_steps"] // 10, "succeeded": one["env_steps"] // 50} for one in (FIRST, SECOND))
    lines(run / "training/code/curve.jsonl", *(one | more for one, more in zip((FIRST, SECOND), played, strict=True)))
    live = Progressed(7_000, 900, 180, 9, {"cache_hits": 10, "cache_misses": 390}, rework_steps=2_048, seconds=4.0)
    run.write("training/code/live.json", asdict(live))
    run.write("training/sparse/live.json", asdict(live))
    assert [cell.strip() for cell in row(shown(run.path), "code reward")] == [
        *("7,000", "2,000"),
        *("20%", "0.400", "1.50"),
        *("0", "0%", "2,048 steps trained again"),
    ]
    assert [cell.strip() for cell in row(shown(run.path), "sparse, no progress shown")] == [
        *("7,000", "1,750"),
        *("20%", "-", "-"),
        *("0", "2%", "2,048 steps trained again"),
    ]


def test_a_line_that_is_being_written_is_not_read(run: RunDirectory) -> None:
    with (run / "training/code/curve.jsonl").open("a") as file:
        file.write('{"env_steps": 9')
    assert look(str(run.path)).arms["code"].points == [FIRST, SECOND]


def test_a_copy_under_a_uri_shows_the_same(run: RunDirectory, tmp_path: Path) -> None:
    there = (tmp_path / "there").as_uri()
    Storage(there).push(run.path)
    assert shown(there).splitlines()[1:] == shown(run.path).splitlines()[1:]


def test_a_stage_is_seen_from_its_beginning_and_a_killed_one_until_another_begins(run: RunDirectory) -> None:
    with run.stage("train"):
        assert "since" in look(str(run.path)).stages["train"]
    run.write(STAGES, run.read(STAGES) | {"train": {"done": False, "since": 1.0}})
    assert "train" not in run.seconds, "it never came to an end"
    with run.stage("evaluate"):
        assert [name for name, stage in look(str(run.path)).stages.items() if "since" in stage] == ["evaluate"]
    assert "stopped, 0 s" in shown(run.path)


def test_watching_ends_with_the_result_and_outlasts_storage_that_fails(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def flaky(where: str) -> watch.Glance:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise StoreError("no route")
        if looks == 3:
            run.write("result.json", {"not": "read while a stage runs"})
        if looks == 4:
            with run.stage("train"):
                pass
        return look(where)

    monkeypatch.setattr(watch, "look", flaky)
    assert [glance.over for glance in follow(str(run.path), every_s=0.01)] == [False, False, False, True]


def test_watching_ends_where_the_driver_is_gone_and_says_how_to_go_on(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(run / STAGES, (0, time.time() - 7_300))
    for path in (run / "config.json", run / "program.json", *run.path.rglob("*.jsonl")):
        os.utime(path, (0, time.time() - 90_000))
    monkeypatch.setattr(watch, "NEAR_SILENT_S", 0.05)
    assert not any(glance.over for glance in follow(str(run.path), every_s=0.01))
    assert "No sign of life for 2 h: its driver is gone." in shown(run.path)
    assert f"To go on: carl run DoorKey-8x8 --run-dir '{run.path}'" in shown(run.path)
    assert CliRunner().invoke(app, ["watch", "--once", str(run.path)]).exit_code == 1
    with run.stage("train"):
        assert "gone" not in shown(run.path)
    monkeypatch.setattr(watch, "FAR_SILENT_S", 0.0)
    assert "The command that started it goes on" in shown(run.path.as_uri())


def test_a_stage_that_runs_gives_signs_of_life(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "BEAT_S", 0.01)
    with run.stage("train"):
        os.utime(run / STAGES, (0, 0))
        deadline = time.monotonic() + 60
        while (run / STAGES).stat().st_mtime < 1 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert look(str(run.path)).silent_s < time.time() / 2, "silent since 1970"


def test_a_failure_is_seen_until_its_stage_is_begun_again(run: RunDirectory) -> None:
    with pytest.raises(VlmError), run.attempt("synthesize"), run.stage("synthesize"):
        raise VlmError("no answer [yet]")
    (glance,) = follow(str(run.path))
    assert (glance.failed, glance.over) == ("synthesize", False)
    assert "synthesize failed 0 s ago. VlmError: no answer [yet]" in shown(run.path)
    assert CliRunner().invoke(app, ["watch", str(run.path)]).exit_code == 1
    with pytest.raises(KeyboardInterrupt, match="None"), run.attempt("synthesize"):
        raise KeyboardInterrupt(look(str(run.path)).failed)
    assert look(str(run.path)).failed is None


def test_a_failure_counts_no_more_once_a_stage_before_it_is_done_again(run: RunDirectory) -> None:
    with pytest.raises(VlmError), run.attempt("synthesize"):
        raise VlmError("no answer")
    with run.stage("collect"):
        assert look(str(run.path)).failed is None, "something runs"
    assert look(str(run.path)).failed is None


def test_the_command_prints_once_where_there_is_no_terminal(run: RunDirectory) -> None:
    for command in (["show"], ["watch", "--once"], ["watch"]):
        found = CliRunner().invoke(app, [*command, str(run.path)])
        assert found.exit_code == 0
        assert "runs, 65 s" in found.output


def test_what_is_no_run_is_an_error(run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        look(str(tmp_path))
    with pytest.raises(ConfigError, match="not a URI"):
        look("nonsense://x")
    (run / STAGES).write_text("{")
    with pytest.raises(ConfigError, match=r"stages\.json is not what this carl wrote"):
        look(str(run.path))


def test_the_program_is_named_and_what_the_episodes_leave_open(run: RunDirectory) -> None:
    wait = SubTask(name="wait", code="def progress(frame, initial):\n    return 0.0\n")
    program = RewardProgram(subtasks=(wait,), provenance=Provenance(origin="hand"))
    (run / "program.json").write_text(program.to_json())
    named = f"The program {program.id} is by hand. `carl program show '{run.path}'` prints it."
    assert named in shown(run.path)
    assert _found(run.path) == named, "it was not judged yet"
    report = {"program_id": program.id, "accepted": True, "checks": [], "episodes": {"expert": 2}, "frames": 9}
    run.write("verification.json", report | {"seconds": 1.0})
    assert "At 95 %, these episodes cannot exclude a fault in 77.6 % of the seeds (2 expert" in _found(run.path)


def test_names_are_shown_as_they_are(run: RunDirectory) -> None:
    run.write("program.json", {"subtasks": [{"name": "[/] [red]take\x1b[2J\nit"}, {"name": "open the door"}]})
    text = shown(run.path)
    assert "1 [/] [red]take it" in text
    assert "\x1b" not in text
    assert CliRunner().invoke(app, ["show", str(run.path)]).exit_code == 0


def test_answers_that_did_not_come_are_seen(run: RunDirectory) -> None:
    draw = {"n": 12, "temperature": 1, "max_tokens": 1, "seed": 0}
    lines(run / "synthesis/exchanges.jsonl", {"usage": USAGE, "draw": draw}, {"usage": USAGE, "draw": draw})
    assert "2 requests, 16 of 24 samples" in shown(run.path)
    lines(run / "synthesis/exchanges.jsonl", {"usage": {"calls": 1, "samples": 12}, "draw": draw})
    assert "1 requests, 12 samples (0 tokens in" in shown(run.path), "a server that counts no tokens"
