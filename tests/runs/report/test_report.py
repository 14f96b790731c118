"""The report: complete, partial and hostile runs, and that the page needs nothing from outside."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from carl.artefacts import remedy
from carl.errors import ConfigError
from carl.program import RewardProgram, SubTask
from carl.runs.report import build_report
from tests.runs.report.sample import PROGRAM, REJECTED, evaluation, traced, write_run

ATTACK = "<script>alert('x')</script><img src=https://evil.example/x onerror=alert(1)>"
VOID = {"meta", "img", "source", "line", "circle", "polygon", "polyline", "br", "link"}


class Page(HTMLParser):
    """Collects tags, what the page loads and its words; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def read(run: Path) -> Page:
    return Page(build_report(run, traced).read_text())


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_complete_run_shows_everything(run: Path) -> None:
    page = read(run)
    assert "solves 99 % of 200 unseen episodes after 65 536 environment steps" in page.text
    assert "95 % interval 96.4 to 99.7 %" in page.text
    assert "reaches 70.5 %" in page.text
    for said in (PROGRAM.id, "pick up the key", "carl-nano", "1 312 / 842", "the answer holds no code block"):
        assert said in page.text
    assert "lacks something" not in page.text
    assert page.tags.count("svg") == 4
    assert sum(load.startswith("data:image/webp") for load in page.loads) == 1


def test_episodes_that_were_cut_are_counted(run: Path) -> None:
    said = "training episodes cut, as the environment sets no time limit"
    assert said not in read(run).text
    result = json.loads((run / "result.json").read_text())
    edit(run / "result.json", cut=731, evaluation=result["evaluation"] | {"cut": 19})
    text = " ".join(read(run).text.split())
    assert f"{said} 731" in text
    assert "evaluation episodes cut so 19" in text


def test_what_the_watch_saw_is_shown_with_the_frames_that_decided(run: Path) -> None:
    page = read(run).text
    assert "Alarms were raised, and are over." in page
    assert "4 096 steps, 6.2 % of the budget" in page
    assert "2 of 2 leave it unsolved" in page
    assert "Step 9. expected solved, got not." in page
    assert "the program pays 0.5 of its weight" in page
    shutil.rmtree(run / "training/code/watched")
    (run / "training/code/watch.jsonl").unlink()
    assert "What the watch saw" not in read(run).text


def test_page_is_self_contained_and_small(run: Path) -> None:
    path = build_report(run, traced)
    page = Page(path.read_text())
    assert page.loads
    assert all(load.startswith("data:image/") for load in page.loads)
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    assert "url(" not in path.read_text()
    assert "@import" not in path.read_text()
    assert path.stat().st_size < 1_000_000


def test_deciding_frame_of_a_rejected_candidate_is_marked(run: Path) -> None:
    (run / "training/code/watch.jsonl").unlink()
    text = build_report(run, traced).read_text()
    assert text.count('class="marked"') == 1
    assert "Step 9. wait: expected below 1, got 1" in Page(text).text


def test_failures_of_the_expert_are_among_the_figures(run: Path) -> None:
    edit(run / "result.json", experts={"recorded": 120, "failed": 17})
    text = read(run).text
    assert "expert episodes that failed and were passed over 17" in " ".join(text.split())


def test_rules_that_were_not_applied_are_named(run: Path) -> None:
    edit(run / "verification.json", unjudged={"nothing_for_nothing": "mixed episodes: none were recorded"})
    assert "Not judged: nothing for nothing (mixed episodes: none were recorded)." in read(run).text


def test_hostile_text_is_shown_and_not_obeyed(run: Path) -> None:
    hostile = RewardProgram(
        subtasks=(SubTask(name=ATTACK, description=ATTACK, code=PROGRAM.subtasks[0].code + f"# {ATTACK}\n"),)
    )
    (run / "program.json").write_text(hostile.to_json())
    check = {"name": ATTACK, "passed": False, "figures": {ATTACK: ATTACK}, "evidence": ATTACK}
    frame = {"source": "expert", "seed": 1, "step": 3, "subtask": ATTACK, "expected": ATTACK, "got": ATTACK}
    report = {"accepted": False, "checks": [check | {"frames": [frame]}]}
    edit(run / "verification.json", **report)
    edit(run / "candidates/01-prose.json", rejected=ATTACK, answer=ATTACK)
    edit(run / "candidates/02-naive.json", program=hostile.model_dump(mode="json"), report=report)
    reward = {"kind": "code", "env_reward_weight": 0.5, "env_reward_reason": ATTACK}
    edit(run / "result.json", task=ATTACK, reward=reward, versions={ATTACK: ATTACK}, algorithm=ATTACK)
    page = read(run)
    assert "cannot be" not in page.text
    assert "is not what" not in page.text
    assert "script" not in page.tags
    assert all(load.startswith("data:image/") for load in page.loads)
    assert page.text.count("<script>alert('x')</script>") >= 10


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ((), "no expert and random trajectories"),
        (("config.json", "trajectories"), "no program was tried"),
        (("config.json", "trajectories", "candidates", "synthesis"), "no program was accepted"),
        (("config.json", "trajectories", "candidates", "program.json"), "no verdict of verification"),
        (("config.json", "program.json", "verification.json"), "no training on the code reward"),
        (("config.json", "program.json", "verification.json", "training"), "no final evaluation"),
    ],
)
def test_partial_run_says_what_is_missing(run: Path, kept: tuple[str, ...], said: str) -> None:
    for path in run.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = read(run)
    assert said in page.text
    assert "no result to report" in page.text


def test_strips_of_a_rejected_program_say_so(run: Path) -> None:
    (run / "program.json").unlink()
    (run / "candidates/03-good.json").unlink()
    assert "An expert, as the rejected 02-naive saw it" in read(run).text


def test_unusable_files_are_named(run: Path) -> None:
    (run / "verification.json").write_text("{")
    (run / "synthesis/pairs.npz").write_bytes(b"PK nonsense")
    next((run / "trajectories/expert").glob("*.parquet")).write_bytes(b"short")
    (run / "program.json").write_text("[]")
    (run / "training/code/curve.jsonl").write_text('not json\n{"env_steps": 1}\n')
    text = read(run).text
    for name in ("verification.json", "pairs.npz", "expert", "program.json", "curve.jsonl"):
        assert re.search(rf"{name}.{{0,150}}(cannot|not what|not a)", text), name


@pytest.mark.parametrize(
    ("name", "keys", "value"),
    [
        ("result.json", ("evaluation", "arms"), []),
        ("result.json", ("evaluation", "arms", "code", "greedy", "success_rate"), "most"),
        ("result.json", ("evaluation", "arms", "code", "env_steps"), -5),
        ("result.json", ("vlm", "calls"), True),
        ("result.json", ("seconds", "train"), "long"),
        ("training/code/curve.jsonl", ("success_rate",), "most"),
        ("training/code/curve.jsonl", ("env_steps",), None),
        ("training/code/curve.jsonl", ("evaluation", "episodes"), "many"),
        ("training/code/curve.jsonl", ("abstaining",), [3]),
        ("synthesis/exchanges.jsonl", ("usage", "samples"), "a few"),
        ("verification.json", ("checks",), {"static_policy": True}),
        ("verification.json", ("checks", 0, "figures"), [1, 2]),
        ("candidates/02-naive.json", ("report", "checks", 1, "frames", 0, "step"), "the last"),
        ("candidates/03-good.json", ("report", "accepted"), "of course"),
        ("config.json", ("verify", "deadline_s"), "soon"),
        ("stages.json", ("train",), "done"),
    ],
)
def test_values_of_the_wrong_kind_leave_a_note_and_the_file_counts_as_missing(
    run: Path, name: str, keys: tuple[str | int, ...], value: object
) -> None:
    (run / "stages.json").write_text('{"train": {"done": true, "seconds": 1.0}}')
    lines = (run / name).read_text().splitlines()[: None if name.endswith(".jsonl") else 1]
    tree = json.loads(lines[0])
    inner = tree
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    lines[0] = json.dumps(tree)
    (run / name).write_text("\n".join([*lines, ""]))
    text = read(run).text
    note = re.search(rf"{run / name} is not what this carl wrote \((.*?)\): (correct|delete)", text)
    assert note, text
    assert ".".join(str(key) for key in keys) in note[1]


def test_a_file_that_is_a_folder_is_named(run: Path) -> None:
    for name in ("result.json", "program.json", "training/code/curve.jsonl", "synthesis/pairs.npz"):
        (run / name).unlink()
        (run / name).mkdir()
    text = read(run).text
    for name in ("result.json", "program.json", "training/code/curve.jsonl", "synthesis/pairs.npz"):
        assert f"{run / name} is not what this carl wrote (Is a directory): {remedy(str(run / name))}" in text, name


def test_baseline_that_does_better_is_said_beside_the_result(run: Path) -> None:
    arms = {"code": {"greedy": evaluation(180)}, "sparse": {"greedy": evaluation(190)}}
    edit(run / "result.json", evaluation={"arms": arms})
    assert "cannot be told, and the final success rate shows no gain" in read(run).text
    arms["code"] = {"greedy": evaluation(150)}
    edit(run / "result.json", evaluation={"arms": arms})
    assert "does better here: the intervals are apart" in read(run).text


def test_headline_mode_is_what_the_verdict_reports(run: Path) -> None:
    arm = {"headline": "sampled", "greedy": evaluation(20), "sampled": evaluation(196)}
    edit(run / "result.json", evaluation={"arms": {"code": arm}})
    text = read(run).text
    assert "solves 98 % of 200" in text
    assert "No baseline was trained" in text


def test_mixed_in_reward_is_explained(run: Path) -> None:
    reward = {"kind": "code", "env_reward_weight": 0.5, "env_reward_reason": "A toggled box vanishes as a taken one."}
    edit(run / "result.json", reward=reward)
    text = read(run).text
    assert "mixed in with weight 0.5. A toggled box vanishes" in text
    assert "with the environment's own mixed in" in text


def test_program_that_cannot_be_run_leaves_frames_without_bars(run: Path) -> None:
    page = Page(build_report(run, lambda program, trajectory: None).read_text())
    assert "frames" in page.text.lower()
    assert "sub-tasks done" not in page.text
    assert sum(load.startswith("data:image/webp") for load in page.loads) == 1


def test_no_run_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a run directory"):
        build_report(tmp_path / "nowhere")


def test_code_of_rejected_candidates_is_shown(run: Path) -> None:
    text = read(run).text
    assert all(subtask.name in text for subtask in REJECTED.subtasks)
    assert all(reason in text for reason in ("already done at the frame", "Sure! ..."))
