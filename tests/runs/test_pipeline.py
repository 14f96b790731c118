"""All stages on a corridor, with a scripted model: what is left behind, and going on after a stop."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from typer.testing import CliRunner

from carl.cli import app
from carl.cluster import logs
from carl.config import RunConfig
from carl.episodes.play import rollout
from carl.episodes.trajectory import TrajectoryStore
from carl.errors import ConfigError, ProgramError, TaskError, VlmError
from carl.induction import Induced
from carl.methods import code
from carl.methods.arms import arm_of
from carl.methods.code import CodeConfig
from carl.methods.recorded import Episodes
from carl.program import RewardProgram, SubTask
from carl.runs.pipeline import Pipeline
from carl.runs.stages import ORDER, training
from carl.runs.trial import Trial
from carl.synthesis import search
from carl.synthesis.ledger import Ledger
from carl.task import Frame, Task
from carl.verification import VerificationReport
from carl.verification.rule import Evidence
from carl.vlm.client import VlmClient
from tests.fakes.corridor import Corridor
from tests.fakes.scripted_vlm import Asked, ScriptedVlm

pytestmark = pytest.mark.usefixtures("ray_cluster")

LENGTH = 12
CORRIDOR = Task(
    name="Corridor",
    description="Walk to the end.",
    make=partial(Corridor, LENGTH, 60),
    expert=lambda env: lambda observation: 1,
    defaults={"collect.random_cut": 3.0},
)
PLAN = "Scene: a corridor.\n1. walk to the end"
PROGRAM = "```python\ndef progress(frame, initial):\n    return min(1.0, frame[0, 0, 0] / {length})\n```"


def answer(asked: Asked) -> list[str]:
    reply = PLAN if "name the sub-tasks" in asked.task else PROGRAM.format(length=LENGTH)
    return [reply] * asked.n


@pytest.fixture
def vlm() -> Iterator[ScriptedVlm]:
    server = ScriptedVlm(answer)
    with server.running():
        yield server


def config(directory: Path, base_url: str, **changes: Any) -> RunConfig:
    return CodeConfig.model_validate(
        {
            "task": "tests.runs.test_pipeline:CORRIDOR",
            "run_dir": directory,
            "vlm": {"model": "scripted", "base_url": base_url, "max_retries": 0, "timeout_s": 5.0},
            "synthesis": {"samples": 2, "max_requests": 3},
            "collect": {"experts": 4, "randoms": 20},
            "verify": {"min_experts": 2, "min_randoms": 20, "max_random_completion": 0.5, "max_part": 0.5},
            "train": {"env_steps": 4096, "env_runners": 0, "envs_per_runner": 8, "baselines": False},
            "evaluation": {"episodes": 10, "curve_episodes": 4},
        }
        | changes
    )


def test_a_run_goes_through_all_stages_and_is_not_done_twice(
    tmp_path: Path, vlm: ScriptedVlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path, vlm.base_url)
    result = Pipeline(settings).run()
    assert result is not None
    assert result["task"] == "Corridor"
    assert result["program_id"] == json.loads((tmp_path / "verification.json").read_text())["program_id"]
    assert {key: result["vlm"][key] for key in ("model", "calls", "samples")} == {
        "model": "scripted",
        "calls": 2,
        "samples": 4,
    }
    assert result["env_steps"] >= 4096
    assert result["evaluation"]["episodes"] == 10
    assert 0 <= result["evaluation"]["success_rate"] <= 1
    assert set(result["evaluation"]["arms"]) == {"code"}
    assert result["experts"] == {"recorded": 8, "failed": 0}
    assert set(result["seconds"]) == {"collect", "synthesize", "verify", "train", "evaluate"}
    assert "walk to the end" in (tmp_path / "report.html").read_text()
    assert "code reward" in CliRunner().invoke(app, ["watch", str(tmp_path)]).output
    (episode,) = TrajectoryStore(tmp_path / "training/code/episode").read()
    assert episode.success == bool(episode.rewards.sum())

    asked = len(vlm.asked)
    with monkeypatch.context() as patch:
        patch.setattr(Trial, "hold", lambda *_, **__: pytest.fail("what is done needs no trial"))
        Pipeline(settings).run()
    (tmp_path / "result.json").unlink()
    again = Pipeline(settings).run()
    assert again is not None
    assert again | {"seconds": {}} == result | {"seconds": {}}, "evaluated again, and nothing else done"
    assert len(vlm.asked) == asked

    program = RewardProgram.load(tmp_path / "program.json")
    edited = program.subtasks[0].model_copy(update={"code": program.subtasks[0].code + "\n# better"})
    (tmp_path / "program.json").write_text(RewardProgram(subtasks=(edited,)).to_json())
    for stage in ("train", "evaluate"):
        with pytest.raises(ConfigError, match=rf"is not the program that was verified .* run `carl verify {tmp_path}`"):
            Pipeline(settings).run((stage,))
    with pytest.raises(ConfigError, match=f"training with the program {program.id}"):
        Pipeline(settings).run()
    assert json.loads((tmp_path / "verification.json").read_text())["program_id"] != program.id


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_what_needs_a_verified_program_says_so_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setattr("carl.runs.pipeline.ray_running", lambda progress: pytest.fail("Ray was started"))
    with pytest.raises(ConfigError, match=rf"there is no verified program yet; run `carl verify '{tmp_path}/a run'`"):
        Pipeline(config(tmp_path / "a run", "", vlm={})).run((stage,))


class Speaking(Corridor):
    """Says what it observes."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gym.spaces.Text(9)


SPEAKING = replace(CORRIDOR, name="Speaking", make=Speaking)


@pytest.mark.parametrize("stages", [("collect",), ("train",), ORDER])
def test_what_training_refuses_is_refused_before_anything_is_paid(
    tmp_path: Path, vlm: ScriptedVlm, monkeypatch: pytest.MonkeyPatch, stages: tuple[str, ...]
) -> None:
    monkeypatch.setattr("carl.runs.pipeline.ray_running", lambda progress: pytest.fail("Ray was started"))
    settings = config(tmp_path, vlm.base_url, task="tests.runs.test_pipeline:SPEAKING")
    with pytest.raises(TaskError, match=r"no policy can see or act in .*Text"):
        Pipeline(settings).run(stages)
    assert not vlm.asked
    assert "no policy can see" in json.loads((tmp_path / "stages.json").read_text())[stages[0]]["failed"]["message"]


def wide(env: gym.Env[Any, Any]) -> Frame:
    return np.tile(CORRIDOR.frame(env), (1, 17, 1))


WIDE = replace(CORRIDOR, name="Wide", camera=wide)


def test_the_embedded_model_says_at_once_what_it_cannot_be_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carl.runs.pipeline.ray_running", lambda progress: pytest.fail("Ray was started"))
    asked = {"vlm": {}, "synthesis": {"proposers": ["model"]}}
    with pytest.raises(VlmError, match=r"embedded model cannot be shown 'Wide'.*name a larger model"):
        Pipeline(config(tmp_path, "", task="tests.runs.test_pipeline:WIDE", **asked)).run()
    assert not (tmp_path / "trajectories").exists()


def test_without_a_model_that_knows_the_pictures_none_is_served_and_what_was_done_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The corridor's frames are no rooms. What induction finds there is another test's; here it finds a program."""
    monkeypatch.setattr("carl.vlm.client.connect", lambda *_: pytest.fail("a model was served"))
    program = RewardProgram(
        subtasks=(SubTask(name="walk", code=f"def progress(frame, initial):\n    return frame[0, 0, 0] / {LENGTH}\n"),)
    )
    monkeypatch.setattr("carl.synthesis.induce.induce", lambda *_, **__: Induced((program,)))
    result = Pipeline(config(tmp_path, "", vlm={}, synthesis={})).run()
    assert result is not None
    assert result["vlm"] is None
    assert (result["search"]["proposers"], result["search"]["proposer"]) == (["induction"], "induction")
    assert RewardProgram.load(tmp_path / "program.json").id == program.id
    shown = " ".join(CliRunner().invoke(app, ["show", str(tmp_path)]).output.split())
    assert "No VLM was asked: the search took" in shown
    assert "by induction, without a model" in shown
    page = (tmp_path / "report.html").read_text()
    assert "No model was asked" in page
    assert "VLM was shown" not in page


def test_where_induction_refuses_one_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carl.synthesis.induce.induce", lambda *_, **__: Induced(refusal="success cannot be seen"))
    with pytest.raises(ProgramError, match=r"no program to try: success cannot be seen\. Name a model"):
        Pipeline(config(tmp_path, "", vlm={}, synthesis={})).run(("collect", "synthesize"))


def test_a_synthesis_that_was_stopped_goes_on_from_its_recording(tmp_path: Path, vlm: ScriptedVlm) -> None:
    settings = config(tmp_path, vlm.base_url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code, "keep", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            Pipeline(settings).run(("collect", "synthesize"))
    asked = len(vlm.asked)
    assert asked == 2
    assert not (tmp_path / "program.json").exists()
    Pipeline(settings).run(("collect", "synthesize"))
    assert (tmp_path / "program.json").exists()
    assert len(vlm.asked) == asked


def test_a_run_goes_on_elsewhere_from_what_lies_in_its_storage(tmp_path: Path, vlm: ScriptedVlm) -> None:
    there = {"storage": (tmp_path / "there").as_uri()}
    Pipeline(config(tmp_path / "here", vlm.base_url, **there)).run(("collect", "synthesize"))
    asked = len(vlm.asked)
    elsewhere = Pipeline(config(tmp_path / "elsewhere", vlm.base_url, **there))
    assert elsewhere.dir.done("synthesize")
    elsewhere.run(("collect", "synthesize", "verify"))
    assert len(vlm.asked) == asked
    assert (tmp_path / "there" / "verification.json").exists()


def test_logs_of_an_arm_are_about_the_program_that_it_looks_at(tmp_path: Path, vlm: ScriptedVlm) -> None:
    pipeline = Pipeline(config(tmp_path, vlm.base_url))
    program = RewardProgram(subtasks=(SubTask(name="walk", code="def progress(frame, initial):\n    return 1.0"),))
    (tmp_path / "program.json").write_text(program.to_json())
    (tmp_path / "verification.json").write_text(json.dumps({"accepted": True, "program_id": program.id}))
    with pipeline.dir.stage("verify"):
        pass
    about = {}
    for arm in ("code", "sparse+progress", "sparse"):
        with training(pipeline.work, arm_of(arm)):
            about[arm] = logs.origin().get("program")
    assert about == {"code": program.id, "sparse+progress": program.id, "sparse": None}
    assert logs.origin()["program"] == program.id


def test_a_program_that_never_gets_done_is_rejected_with_its_evidence(tmp_path: Path) -> None:
    server = ScriptedVlm(lambda asked: [PLAN if "name" in asked.task else PROGRAM.format(length=99)] * asked.n)
    with server.running(), pytest.raises(ProgramError, match="no program survived"):
        Pipeline(config(tmp_path, server.base_url)).run(("collect", "synthesize"))
    candidates = [json.loads(path.read_text()) for path in sorted((tmp_path / "candidates").glob("01-*.json"))]
    assert [candidate["report"]["accepted"] for candidate in candidates] == [False]
    assert not (tmp_path / "program.json").exists()


def test_a_model_that_is_down_leaves_the_run_resumable(tmp_path: Path, vlm: ScriptedVlm) -> None:
    with pytest.raises(VlmError, match=r"127\.0\.0\.1:9"):
        Pipeline(config(tmp_path, "http://127.0.0.1:9/v1")).run(("collect", "synthesize"))
    Pipeline(config(tmp_path, vlm.base_url)).run(("collect", "synthesize"))
    assert (tmp_path / "program.json").exists(), "the server is named anew in the same directory"


def test_demonstrations_are_halved_between_search_and_verdict(
    tmp_path: Path, vlm: ScriptedVlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "demonstrations"
    lost = replace(rollout(CORRIDOR, 9, "expert"), success=False)
    TrajectoryStore(store).write([lost, *(rollout(CORRIDOR, seed, "expert") for seed in range(5))])
    task = replace(CORRIDOR, name="Recorded", expert=None, demonstrations=str(store))
    monkeypatch.setattr("carl.runs.pipeline.get_task", lambda name: task)
    Pipeline(config(tmp_path / "run", vlm.base_url)).run(("collect", "synthesize", "verify"))
    search, verdict = (TrajectoryStore(tmp_path / f"run/trajectories/{name}expert") for name in ("", "held-out-1-"))
    assert [episode.seed for episode in search] == [0, 1]
    assert [episode.seed for episode in verdict] == [2, 3]
    assert (search.manifest.failed, verdict.manifest.failed) == (1, 0)

    TrajectoryStore(store).write([rollout(CORRIDOR, 0, "expert")], replace=True)
    with pytest.raises(TaskError, match="too few demonstrations"):
        Pipeline(config(tmp_path / "few", vlm.base_url)).run(("collect",))


def several(*programs: str) -> ScriptedVlm:
    """A model that names one sub-task, and writes these programs for it in one answer."""
    return ScriptedVlm(lambda asked: [PLAN] * asked.n if "name the" in asked.task else [*programs][: asked.n])


FIRST, SECOND, THIRD = (PROGRAM.format(length=length) for length in (LENGTH, f"{LENGTH}.0", f"{LENGTH}.00"))


class HeldOutRefuses:
    """The judge, but that the first ``count`` programs fail on held-out episodes; notes what it judges."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        self._judge, self._count = code.judge, count
        self.judged: list[str] = []
        monkeypatch.setattr(code, "judge", self)

    def __call__(self, program: RewardProgram, *episodes: Any) -> VerificationReport:
        report = self._judge(program, *episodes)
        self.judged.append(program.id)
        if self.judged.count(program.id) == 2 and len(set(self.judged)) <= self._count:
            failed = report.checks[0].model_copy(update={"passed": False, "subtask": 0, "message": "unlucky"})
            return report.model_copy(update={"accepted": False, "checks": (failed,)})
        return report


SEARCH = ("collect", "synthesize", "verify")


def interrupting(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, when: Callable[..., bool]) -> None:
    """Ctrl-C after the first call of that function for which ``when`` holds."""
    function, left = getattr(module, name), [True]

    def interrupted(*args: Any, **more: Any) -> Any:
        result = function(*args, **more)
        if left and when(*args):
            left.pop()
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(module, name, interrupted)


STOPS: dict[str, tuple[Any, str, Callable[..., bool]]] = {
    "after the refusal is noted": (Ledger, "keep", lambda _, candidate: candidate.held_out is not None),
    "before the second program is judged": (Ledger, "keep", lambda _, candidate: candidate.number == 2),
    "before the program is written": (code, "keep", lambda *_: True),
    "in the middle of verify": (code, "program_of", lambda *_: True),
}


@pytest.mark.parametrize("stop", [None, *STOPS])
def test_a_program_that_fails_on_fresh_episodes_sends_the_search_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str | None
) -> None:
    strict = HeldOutRefuses(monkeypatch, 1)
    with several(FIRST, SECOND).running() as server:
        if stop:
            interrupting(monkeypatch, *STOPS[stop])
            with pytest.raises(KeyboardInterrupt):
                Pipeline(config(tmp_path, server.base_url)).run(SEARCH)
        Pipeline(config(tmp_path, server.base_url)).run(SEARCH)
    first, second = dict.fromkeys(strict.judged)
    if not stop:
        assert strict.judged == [first, first, second, second, second], "the second survives the set that refused one"
    report = VerificationReport.load(tmp_path / "verification.json")
    assert (report.accepted, report.program_id) == (True, second)
    assert RewardProgram.load(tmp_path / "program.json").id == second
    assert (tmp_path / "trajectories/held-out-2-expert").exists(), "the second verdict has episodes of its own"
    assert not (tmp_path / "trajectories/held-out-3-expert").exists()
    assert len(server.asked) == 2, "the other sample was already there"
    verdicts = Ledger(tmp_path / "candidates").verdicts()
    assert {name: (each.number, each.report.accepted) for name, each in verdicts.items()} == {
        first: (1, False),
        second: (2, True),
    }


def test_a_refusal_that_an_older_carl_noted_in_a_file_name_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with several(FIRST, SECOND).running() as server:
        Pipeline(config(tmp_path, server.base_url)).run(SEARCH)
        first = RewardProgram.load(tmp_path / "program.json")
        for path in (tmp_path / "candidates").iterdir():
            path.unlink()
        report = json.loads((tmp_path / "verification.json").read_text()) | {"accepted": False}
        report["checks"][0] |= {"passed": False, "subtask": 0}
        content = {"program": first.model_dump(mode="json"), "report": report}
        (tmp_path / f"candidates/held-out-1-{first.id}.json").write_text(json.dumps(content))
        for name in ("program.json", "verification.json"):
            (tmp_path / name).unlink()
        Pipeline(config(tmp_path, server.base_url)).run(SEARCH)
    second = RewardProgram.load(tmp_path / "program.json")
    assert second != first
    assert Ledger(tmp_path / "candidates").verdicts()[second.id].number == 2
    assert len(server.asked) == 2


class EachSetRefuses:
    """The judge, but that the n-th program fails on the n-th set of held-out episodes and survives those before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._judge = code.judge
        self._programs: list[str] = []
        self._sets: list[int] = []
        monkeypatch.setattr(code, "judge", self)

    def __call__(self, program: RewardProgram, episodes: Episodes, *more: Any) -> VerificationReport:
        report = self._judge(program, episodes, *more)
        first = next(iter(episodes[Evidence.EXPERTS])).seed
        for known, one in (self._programs, program.id), (self._sets, first):
            if one not in known:
                known.append(one)
        if self._sets.index(first) == 1 + self._programs.index(program.id):
            failed = report.checks[0].model_copy(update={"passed": False, "subtask": 0, "message": "unlucky"})
            return report.model_copy(update={"accepted": False, "checks": (failed,)})
        return report


def test_after_as_many_refusals_as_there_are_sets_a_run_gives_up_and_names_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "VERDICTS", 2)
    EachSetRefuses(monkeypatch)
    settings = {"synthesis": {"samples": 3, "max_requests": 3, "proposers": ["model"]}}
    with several(FIRST, SECOND, THIRD).running() as server:
        for _ in range(2):
            with pytest.raises(ProgramError, match=r"(?s)sets of fresh .*The best is .*/03-.*: it .*collect\.exp"):
                Pipeline(config(tmp_path, server.base_url, **settings)).run(SEARCH)
    assert not (tmp_path / "program.json").exists()
    assert len(server.asked) == 2


def edited(path: Path, old: str, new: str) -> RewardProgram:
    program = RewardProgram.load(path)
    subtask = program.subtasks[0].model_copy(update={"code": program.subtasks[0].code.replace(old, new)})
    changed = RewardProgram(subtasks=(subtask,))
    path.write_text(changed.to_json())
    return changed


def test_verify_reports_what_the_search_found_and_judges_what_was_edited(
    tmp_path: Path, vlm: ScriptedVlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = HeldOutRefuses(monkeypatch, 0)
    settings, path = config(tmp_path, vlm.base_url), tmp_path / "program.json"
    Pipeline(settings).run(("collect", "synthesize"))
    original = RewardProgram.load(path)
    Pipeline(settings).run(("verify",))
    assert strict.judged == [original.id, original.id], "verify judged nothing"
    assert VerificationReport.load(tmp_path / "verification.json").program_id == original.id

    better = edited(path, str(LENGTH), f"({LENGTH})")
    Pipeline(settings).run(SEARCH)
    assert strict.judged[2:] == [better.id]
    assert VerificationReport.load(tmp_path / "verification.json").program_id == better.id

    worse = edited(path, f"({LENGTH})", "99")
    for _ in range(2):
        with pytest.raises(ProgramError, match=r"program\.json fails on fresh episodes: sub-task 1 .* run `carl run"):
            Pipeline(settings).run(("verify",))
        with pytest.raises(ConfigError, match="no verified program"):
            Pipeline(settings).run(("train",))
    assert strict.judged[3:] == [worse.id], "once"
    assert not VerificationReport.load(tmp_path / "verification.json").accepted
    assert RewardProgram.load(path) == worse

    Pipeline(settings).run(SEARCH)
    assert RewardProgram.load(path) == original, "synthesis goes on from what it was answered"
    assert VerificationReport.load(tmp_path / "verification.json").accepted
    assert len(vlm.asked) == 2


def test_a_model_is_released_before_held_out_episodes_are_recorded(
    tmp_path: Path, vlm: ScriptedVlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[bool] = []
    there = tmp_path / "trajectories/held-out-1-expert"
    monkeypatch.setattr(VlmClient, "release", lambda _: recorded.append(there.exists()))
    Pipeline(config(tmp_path, vlm.base_url)).run(("collect", "synthesize"))
    assert (recorded, there.exists()) == ([False], True)
