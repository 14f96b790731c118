"""A run seen from its files: how far it is, whatever wrote them and wherever they lie."""

import json
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from carl import watch
from carl.cli import app
from carl.config import RunConfig
from carl.errors import ConfigError, StoreError
from carl.rundir import STAGES, RunDirectory
from carl.storage import Storage
from carl.watch import follow, look, picture


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
    made = RunDirectory(RunConfig(task="DoorKey-8x8", seed=3, run_dir=tmp_path / "a run"))
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
        "4,000",
        "1,500",
        "0.400",
        "1.50",
        "2",
        "80%",
        "5 abstains",
    ]
    assert [cell.strip() for cell in row(text, "1 pick up the key")] == ["30.00", "50%"]
    assert [cell.strip() for cell in row(text, "2 open the door")] == ["5.00", "8%"]
    assert "2 requests, 16 samples (1,400 tokens in, 80 out, 3.0 s)" in text
    assert "runs, 65 s" in text


def test_a_line_that_is_being_written_is_not_read(run: RunDirectory) -> None:
    with (run / "training/code/curve.jsonl").open("a") as file:
        file.write('{"env_steps": 9')
    assert look(str(run.path)).curves["code"] == [FIRST, SECOND]


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
    assert [glance.over for glance in follow(str(run.path), every_s=0.01)] == [False, False, True]


def test_the_command_prints_once_where_there_is_no_terminal(run: RunDirectory) -> None:
    for command in (["show"], ["watch", "--once"], ["watch"]):
        found = CliRunner().invoke(app, [*command, str(run.path)])
        assert found.exit_code == 0
        assert "runs, 65 s" in found.output


def test_what_is_no_run_is_an_error(run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        look(str(tmp_path))
    with pytest.raises(ConfigError, match="no URI"):
        look("nonsense://x")
    (run / STAGES).write_text("{")
    with pytest.raises(ConfigError, match="cannot read"):
        look(str(run.path))
