"""A run read from its directory and from a copy of it: the same, strictly or with notes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carl.artefacts import CONFIG, TABLE, Form, watched
from carl.errors import CarlError, ConfigError, StoreError
from carl.runs.files import Files
from carl.runs.reader import Notes, Run
from carl.runs.storage import Storage
from carl.runs.values import VALUES
from tests.fakes.finished import write
from tests.runs.report.sample import EXPERTS, PROGRAM, write_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_run(tmp_path_factory.mktemp("run") / "a run")
    usage = {"calls": 1, "samples": 3, "prompt_tokens": 9, "completion_tokens": 8, "seconds": 2.5}
    lines = [{"usage": usage, "draw": {"n": 4}}, {"usage": usage | {"samples": 0}, "draw": {"n": 4}, "error": "late"}]
    write(path, "synthesis/exchanges.jsonl", "".join(f"{line}\n" for line in map(json.dumps, lines)))
    write(path, "stages.json", {"collect": {"done": True, "seconds": 1.5}, "train": {"done": False}})
    write(path, "training/code/live.json", {"env_steps": 7, "counts": {"begun": 3}})
    write(path, "training/code/training.json", {"program": PROGRAM.id})
    return path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "a run"))


def read(run: Run) -> dict[str, Any]:
    """All that a run can be asked."""
    expert, played = run.recorded("expert", EXPERTS[1]), run.played("code")
    assert expert is not None
    assert played is not None
    return {
        **{name: getattr(run, name) for name in ("config", "stages", "result", "synthesis", "verification")},
        **{name: getattr(run, name) for name in ("exchanges", "asked", "usage", "seconds", "task_name", "subtasks")},
        **{name: getattr(run, name) for name in ("program", "candidates")},
        "arm": [run.curve("code"), run.live("code"), run.subject("code"), run.evaluation("code")],
        "pairs": np.array(run.pairs()).tolist(),
        "episodes": [(len(one), np.asarray(one.frames).sum()) for one in (expert, played)],
    }


def test_a_copy_under_a_uri_reads_as_the_directory_does(run: Path, tmp_path: Path) -> None:
    uri = (tmp_path / "a copy").as_uri()
    Storage(uri).push(run)
    here = read(Run(Files(run)))
    assert read(Run(Files(uri))) == here
    assert here["program"] == PROGRAM
    assert here["seconds"]["train"] == 96.1
    assert here["arm"][1] == {"env_steps": 7, "counts": {"begun": 3}, "reward": {"begun": 3}}


def test_an_exchange_that_failed_wanted_no_answers(run: Path) -> None:
    asked = Run(Files(run)).asked
    assert asked == {"calls": 2, "samples": 3, "prompt_tokens": 18, "completion_tokens": 16, "seconds": 5, "wanted": 4}


def test_what_is_not_there_is_empty(tmp_path: Path) -> None:
    nothing = Run(Files(tmp_path))
    assert not any((nothing.config, nothing.result, nothing.exchanges, nothing.asked, nothing.candidates))
    assert not any((nothing.program, nothing.subtasks, nothing.curve("code"), nothing.live("code"), nothing.pairs()))
    assert nothing.recorded("expert") is None
    assert nothing.task_name == tmp_path.name


@pytest.mark.parametrize("uri", [False, True])
@pytest.mark.parametrize(
    ("name", "ask", "missing"),
    [
        ("result.json", lambda run: run.result, {}),
        ("program.json", lambda run: run.program, None),
        ("training/code/curve.jsonl", lambda run: run.curve("code"), []),
        ("synthesis/pairs.npz", lambda run: run.pairs(), []),
        ("trajectories/expert/manifest.json", lambda run: run.recorded("expert"), None),
        ("candidates/03-good.json", lambda run: run.candidates[2].report, {}),
    ],
)
def test_a_damaged_file_is_an_error_or_a_note_as_one_reads(
    run: Path, name: str, ask: Any, missing: object, uri: bool
) -> None:
    (run / name).write_text('{"evaluation": 7, "report": 7}\n')
    where = run.as_uri() if uri else str(run)
    with pytest.raises(CarlError) as refused:
        ask(Run(Files(where)))
    assert (name if uri else str(run / name)) in str(refused.value)
    notes = Notes()
    patient = Run(Files(where), notes)
    assert ask(patient) == missing
    assert ask(patient) == missing
    assert str(refused.value) in notes
    assert len(set(notes)) == 1


def test_what_cannot_be_reached_is_named(run: Path) -> None:
    with pytest.raises(ConfigError, match="not a URI"):
        Files("nonsense://bucket/run")
    (run / CONFIG).unlink()
    (run / CONFIG).mkdir()
    with pytest.raises(ConfigError, match=rf"{run / CONFIG} is not what .* \(Is a directory\): correct it"):
        _ = Run(Files(run)).config
    with pytest.raises(StoreError, match=r"config\.json cannot be used"):
        _ = Run(Files(run.as_uri())).config


def test_all_files_that_hold_json_have_their_values_checked() -> None:
    held = {row.pattern for row in TABLE if row.form in (Form.MAPPING, Form.LINES, Form.PROGRAM)}
    assert held - VALUES.keys() == {"training/*/checkpoints/*/state.json"}, "which carl.training.checkpoint checks"


def test_signs_of_life_come_from_the_files_of_each_arm() -> None:
    names = watched(["code", "sparse"])
    assert {"stages.json", "training/code/live.json", "training/sparse/curve.jsonl"} <= set(names)
    assert not [name for name in names if "*" in name]
    assert "result.json" not in names
