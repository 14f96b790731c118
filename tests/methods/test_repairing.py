"""The process in which another program is searched for."""

import json
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from carl.artefacts import PROGRAM
from carl.episodes.trajectory import Trajectory, TrajectoryStore
from carl.errors import ProgramError
from carl.methods import Work, repairing
from carl.methods.code import CodeConfig, episodes_of
from carl.methods.repair import main
from carl.methods.repairing import Repairs
from carl.program import RewardProgram, SubTask
from carl.verification.rule import Evidence
from tests.fakes.corridor import CORRIDOR

FOUND = RewardProgram(subtasks=(SubTask(name="go", code="def progress(frame, initial):\n    return 0.0\n"),))
FRAMES = np.zeros((2, 8, 8, 3), np.uint8)
FILM = Trajectory(FRAMES, np.zeros(1, np.int64), np.zeros(1), False, True, False, 7, "policy")


def work_in(folder: Path, task: str = "tests.fakes.corridor:CORRIDOR") -> Work[CodeConfig]:
    return Work(CORRIDOR, CodeConfig(task=task, run_dir=folder), folder)


def test_it_searches_with_the_runs_episodes_and_the_policys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, folder = tmp_path / "run", tmp_path / "run/training/code/repair-1"
    TrajectoryStore(folder / "trajectories/policy").write([FILM, replace(FILM, seed=8)])
    asked = []

    def found(work: Work[CodeConfig]) -> None:
        monkeypatch.setattr("carl.methods.code.recorded", lambda there, *_: {Evidence.EXPERTS: there.directory})
        asked.append((work.directory, episodes_of(work), episodes_of(work, held_out=1)))

    monkeypatch.setattr("carl.methods.code.check_sound", lambda *_: None)
    monkeypatch.setattr("carl.methods.code.synthesize", found)
    monkeypatch.setattr("carl.cluster.session._start", lambda: None)
    monkeypatch.setattr("sys.stdin", StringIO(work_in(run).config.model_dump_json()))
    assert main(str(run), str(folder)) == 0
    ((directory, episodes, held_out),) = asked
    assert (directory, episodes[Evidence.EXPERTS]) == (folder, run)
    assert [film.seed for film in episodes[Evidence.POLICY]] == [7]
    assert [film.seed for film in held_out[Evidence.POLICY]] == [8], "the verdict is on others"


def test_what_goes_wrong_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(work: Work[CodeConfig]) -> None:
        raise ProgramError("no program\nsurvived")

    monkeypatch.setattr("carl.methods.code.synthesize", nothing)
    monkeypatch.setattr("carl.cluster.session._start", lambda: None)
    monkeypatch.setattr("sys.stdin", StringIO(work_in(tmp_path).config.model_dump_json()))
    assert main(str(tmp_path), str(tmp_path)) == 1
    assert capsys.readouterr().out == "ProgramError: no program survived\n"


def test_a_search_runs_beside_and_its_end_is_noticed(tmp_path: Path) -> None:
    repairs = Repairs(work_in(tmp_path, task="nothing.of.the:SORT"), "code")
    assert repairs.begin([FILM]) == 1
    assert repairs.running
    deadline = time.monotonic() + 120
    while (result := repairs.result()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert result[0] is None
    assert result[1].startswith("TaskError: ")
    assert (repairs.running, repairs.result()) == (False, None)
    assert repairs.begin([replace(FILM, seed=8)]) == 2
    store = TrajectoryStore(repairs.folder(2) / "trajectories/policy")
    assert store.endings("seed") == [7, 8], "what was evidence before still is"
    process = repairs._process
    repairs.close()
    repairs.close()
    assert process is not None
    assert process.poll() is not None


def test_it_is_told_apart_from_a_program_that_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repairing.sys, "executable", "/bin/true")
    repairs = Repairs(work_in(tmp_path), "code")
    repairs.begin([FILM])
    (repairs.folder(1) / PROGRAM).write_text(json.dumps(json.loads(FOUND.to_json())))
    assert repairs._process is not None
    repairs._process.wait(60)
    assert repairs.result() == (FOUND, "")
