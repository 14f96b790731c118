"""Models' recorded answers, replayed: whatever changes a request shows here."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from carl.artefacts import JOURNAL
from carl.errors import StoreError, VlmError
from carl.methods.code import CodeConfig, check_model
from carl.tasks import BUILT_IN
from carl.vlm import prompts
from carl.vlm.client import VlmClient, check_recording
from carl.vlm.exchange import Question, Recording
from tests.recordings import FOLDER, SERVED, TASKS, VLM, found_of, settings_of

ANEW = "run `python benchmarks/record_exchanges.py`, and look at what changed"


@pytest.mark.parametrize("task", [*TASKS, *SERVED])
def test_recorded_answers_give_a_program_that_is_accepted(task: str, tmp_path: Path) -> None:
    recording = Recording.existing(FOLDER / task / JOURNAL)
    client = VlmClient(settings_of(task), Recording(tmp_path / JOURNAL), replay=recording)
    try:
        program, report = found_of(task, client)
    except VlmError as error:
        raise AssertionError(f"{error}; if that is intended, {ANEW}") from error
    assert report.accepted, report.evidence()
    assert client.usage.calls == len(recording.path.read_text().splitlines()) >= 1 + len(program.subtasks)


def test_there_is_a_recording_for_each_built_in_task() -> None:
    assert {path.parent.name for path in FOLDER.glob(f"*/{JOURNAL}")} == {task.name for task in BUILT_IN}


def old(tmp_path: Path, task: str = "Empty-8x8") -> Path:
    """A recording of version 1 of the prompts."""
    text = (FOLDER / task / JOURNAL).read_text()
    for name in prompts.NAMES:
        text = text.replace(json.dumps(prompts.load(name).id), json.dumps(f"{name}/1"))
    (tmp_path / "old.jsonl").write_text(text)
    return tmp_path / "old.jsonl"


def test_a_recording_of_another_version_of_the_prompts_is_refused_in_one_sentence(tmp_path: Path) -> None:
    said = r"old.jsonl answers decompose/1, and this carl asks decompose/\d+: replay it with the carl that recorded it"
    with pytest.raises(VlmError, match=said):
        check_recording(old(tmp_path))
    client = VlmClient(VLM, Recording(tmp_path / "x"), replay=Recording(tmp_path / "old.jsonl"))
    with pytest.raises(VlmError, match=said):
        client.ask(Question(prompts.load("decompose").id, "", "", ()), 1, 0)
    work = SimpleNamespace(config=CodeConfig(task="Empty-8x8", vlm={"recording": tmp_path / "old.jsonl"}))
    with pytest.raises(VlmError, match=said):
        check_model(work)  # type: ignore[arg-type]
    check_recording(FOLDER / "Empty-8x8" / JOURNAL)
    with pytest.raises(StoreError, match="there is no recording at"):
        check_recording(tmp_path / "none.jsonl")


def test_a_request_that_a_recording_lacks_is_named_with_what_it_has(tmp_path: Path) -> None:
    client = VlmClient(VLM, Recording(tmp_path / "x"), replay=Recording(FOLDER / "Unlock" / JOURNAL))
    ids = ", ".join(prompts.load(name).id for name in prompts.NAMES)
    with pytest.raises(VlmError, match=f"request .decompose/.* which answers {ids}; it was made with other frames"):
        found_of("Empty-8x8", client)
