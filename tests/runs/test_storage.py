import json
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from carl.artefacts import STAMP
from carl.errors import ConfigError, StoreError
from carl.runs import storage
from carl.runs.storage import Mirror, Storage

CONFIG = json.dumps({"task": "Corridor", "seed": 3})


def run(folder: Path, **files: str) -> Path:
    for name, text in {"config.json": CONFIG, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def content(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != STAMP]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def test_what_is_pushed_is_pulled_elsewhere(tmp_path):
    here = run(tmp_path / "here", **{"stages.json": "{}", "training/code/checkpoints/000000000001/state.json": "1"})
    uri = (tmp_path / "there").as_uri()
    Storage(uri).push(here)
    Storage(uri).pull(tmp_path / "other")
    assert content(tmp_path / "other") == content(here) == content(tmp_path / "there")


def test_only_what_changed_is_copied_and_what_is_gone_is_deleted(tmp_path):
    here, there = run(tmp_path / "here", **{"a": "1", "candidates/b": "1"}), tmp_path / "there"
    kept = Storage(there.as_uri())
    kept.push(here)
    (there / "a").write_text("untouched")
    (here / "candidates/b").write_text("22")
    (here / "config.json").touch()
    kept.push(here)
    assert content(there) == {"config.json": CONFIG, "a": "untouched", "candidates/b": "22"}
    (here / "candidates/b").unlink()
    kept.push(here)
    assert "candidates/b" not in content(there)


def test_what_lies_beside_a_run_is_left_alone(tmp_path):
    here, there = run(tmp_path / "here"), tmp_path / "there"
    Storage(there.as_uri()).push(here)
    run(there / "another", **{"training/code/curve.jsonl": "1"})
    (there / "notes.txt").write_text("mine")
    kept = Storage(there.as_uri())
    kept.pull(here)
    (here / "a").write_text("1")
    kept.push(here)
    assert {"another/config.json", "another/training/code/curve.jsonl", "notes.txt", "a"} <= set(content(there))


def test_a_checkpoint_stays_until_its_successor_is_there(tmp_path, monkeypatch):
    first, second = (f"training/code/checkpoints/{steps}" for steps in ("1", "2"))
    here, there = (
        run(tmp_path / "here", **{f"{first}/algorithm/w": "1", f"{first}/state.json": "1"}),
        tmp_path / "there",
    )
    kept = Storage(there.as_uri())
    kept.push(here)
    shutil.rmtree(here / first)
    run(here, **{f"{second}/algorithm/w": "2", f"{second}/state.json": "2"})
    put = Storage._put
    with monkeypatch.context() as patch:
        patch.setattr(
            Storage, "_put", lambda self, path, name: name != f"{second}/state.json" and put(self, path, name)
        )
        kept.push(here)
    assert f"{first}/state.json" in content(there)
    kept.push(here)
    assert f"{first}/state.json" not in content(there)
    assert f"{second}/state.json" in content(there)


def test_files_of_the_run_s_making_are_left_out(tmp_path):
    names = {"half.json.new": "", "checkpoints/draft/algorithm/x": ""}
    here = run(tmp_path / "here", **names)
    Storage((tmp_path / "there").as_uri()).push(here)
    assert content(tmp_path / "there") == {"config.json": CONFIG}


def test_what_calls_others_complete_is_copied_last(tmp_path, monkeypatch):
    one, store = "training/code/checkpoints/1", "trajectories/expert"
    names = ("stages.json", f"{one}/state.json", "z", f"{one}/algorithm/weights", f"{store}/manifest.json")
    here = run(tmp_path / "here", **dict.fromkeys((*names, f"{store}/part-0", "run.lock", "claim.json"), ""))
    copied = []
    put = Storage._put
    monkeypatch.setattr(Storage, "_put", lambda self, path, name: copied.append(name) or put(self, path, name))
    Storage((tmp_path / "there").as_uri()).push(here)
    assert copied == [
        *("config.json", "z", f"{one}/algorithm/weights", f"{one}/state.json"),
        *(f"{store}/part-0", f"{store}/manifest.json"),
        *("stages.json", "copy.json"),
    ]


def test_a_copy_that_breaks_off_leaves_the_old_file(tmp_path, monkeypatch):
    here, there = run(tmp_path / "here", a="old"), tmp_path / "there"
    kept = Storage(there.as_uri())
    kept.push(here)
    (here / "a").write_text("newer")
    whole, kept._fs = kept._fs, Full(kept._fs)
    with pytest.raises(StoreError, match="No space left"):
        kept.push(here)
    kept._fs = whole
    assert content(there)["a"] == "old"
    kept.push(here)
    assert content(there)["a"] == "newer"


class Full:
    """A file system that has room for two bytes."""

    def __init__(self, fs) -> None:
        self._fs = fs

    def __getattr__(self, name):
        return getattr(self._fs, name)

    @contextmanager
    def open_output_stream(self, path):
        with self._fs.open_output_stream(path) as file:
            file.write(b"ha")
            raise OSError(28, "No space left on device")
            yield


def test_a_run_that_is_here_already_stays_as_it_is(tmp_path):
    here, uri = run(tmp_path / "here", a="once"), (tmp_path / "there").as_uri()
    Storage(uri).push(here)
    (here / "a").write_text("further")
    Storage(uri).pull(here)
    assert content(here)["a"] == "further"


def test_a_run_that_went_on_elsewhere_is_not_overwritten_by_its_beginning(tmp_path):
    here, elsewhere, uri = run(tmp_path / "here", a="once"), tmp_path / "elsewhere", (tmp_path / "there").as_uri()
    Storage(uri).push(here)
    other = Storage(uri)
    other.pull(elsewhere)
    (elsewhere / "a").write_text("further")
    other.push(elsewhere)
    with pytest.raises(ConfigError, match="went on elsewhere since: give another --run-dir"):
        Storage(uri).pull(here)
    assert (content(here)["a"], content(tmp_path / "there")["a"]) == ("once", "further")
    Storage(uri).pull(elsewhere)


def test_a_run_that_was_never_copied_is_not_taken_for_the_one_that_was(tmp_path):
    Storage((tmp_path / "there").as_uri()).push(run(tmp_path / "before", a="once"))
    with pytest.raises(ConfigError, match="not copied from"):
        Storage((tmp_path / "there").as_uri()).pull(run(tmp_path / "here", a="another time"))


def test_a_run_that_was_fetched_in_part_is_fetched_again_and_nothing_is_deleted(tmp_path, monkeypatch):
    there, here = run(tmp_path / "there", a="1", z="1"), tmp_path / "here"
    copies = iter([None])
    with monkeypatch.context() as broken:
        broken.setattr(storage.shutil, "copyfileobj", lambda source, target: next(copies))
        with pytest.raises(StopIteration):
            Storage(there.as_uri()).pull(here)
    kept = Storage(there.as_uri())
    kept.pull(here)
    kept.push(here)
    assert content(here) == content(there) == {"config.json": CONFIG, "a": "1", "z": "1"}


def test_another_run_or_something_else_is_left_alone(tmp_path):
    there = run(tmp_path / "there")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "config.json").write_text(json.dumps({"task": "Corridor", "seed": 4}))
    with pytest.raises(ConfigError, match="another run"):
        Storage(there.as_uri()).pull(tmp_path / "here")
    (there / "config.json").rename(there / "thesis.tex")
    with pytest.raises(ConfigError, match="not a run"):
        Storage(there.as_uri()).pull(tmp_path / "empty")
    assert (there / "thesis.tex").exists()


@pytest.mark.parametrize("uri", ["relative/path", "nonsense://bucket/x", ""])
def test_what_is_no_uri_is_refused(uri):
    with pytest.raises(ConfigError, match="not a URI"):
        Storage(uri)


def test_a_mirror_copies_while_the_run_goes_on_and_at_its_end(tmp_path):
    here, there = run(tmp_path / "here"), tmp_path / "there"
    with Mirror(Storage(there.as_uri()), here, every_s=0.01):
        deadline = time.monotonic() + 10
        while not (there / "config.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (here / "result.json").write_text("{}")
    assert (there / "result.json").exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "carl-storage"]


def test_storage_that_fails_for_a_while_is_said_once_and_costs_nothing(tmp_path, monkeypatch, caplog):
    here, there = run(tmp_path / "here"), tmp_path / "there"
    failures = 3

    kept = Storage(there.as_uri())
    put = Storage._put

    def sometimes(self, path, name):
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise OSError("try again later")
        return put(self, path, name)

    monkeypatch.setattr(Storage, "_put", sometimes)
    with Mirror(kept, here, every_s=0.01):
        time.sleep(0.3)
    assert content(there) == {"config.json": CONFIG}
    assert len([record for record in caplog.records if "try again later" in record.message]) == 1


def test_storage_that_stays_away_is_an_error_at_the_end_that_says_where_the_run_is(tmp_path, monkeypatch):
    here = run(tmp_path / "here")
    monkeypatch.setattr(storage, "PATIENCE_S", 0.05)
    monkeypatch.setattr(Storage, "_put", lambda *_: (_ for _ in ()).throw(OSError("gone")))
    with pytest.raises(StoreError, match=f"whole in {here}"), Mirror(Storage((tmp_path / "t").as_uri()), here, 0.01):
        pass
    with pytest.raises(KeyError), Mirror(Storage((tmp_path / "t").as_uri()), here, 0.01):
        raise KeyError("the run's own error comes first")


def test_what_cannot_be_written_is_said_before_the_work(tmp_path):
    with pytest.raises(StoreError, match="file:///proc/carl cannot be used"):
        Storage("file:///proc/carl").pull(tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_a_second_driver_on_the_same_storage_is_told_and_overwrites_nothing(tmp_path, monkeypatch, caplog):
    here, other, there = run(tmp_path / "here", a="1"), tmp_path / "other", tmp_path / "there"
    Storage(there.as_uri()).push(here)
    second = Storage(there.as_uri())
    second.pull(other)
    (other / "a").write_text("from the other")
    second.push(other)
    with (
        pytest.raises(StoreError, match="went on elsewhere since"),
        Mirror(Storage(there.as_uri()), here, every_s=0.01),
    ):
        (here / "a").write_text("from here")
    assert content(there)["a"] == "from the other"


def test_whatever_goes_wrong_with_a_copy_the_copying_goes_on(tmp_path, monkeypatch):
    here, there = run(tmp_path / "here"), tmp_path / "there"
    failures = iter([RuntimeError("of a file system's own")])
    check = Storage.check_latest

    def sometimes(self, directory):
        for failure in failures:
            raise failure
        check(self, directory)

    monkeypatch.setattr(Storage, "check_latest", sometimes)
    with Mirror(Storage(there.as_uri()), here, every_s=0.01):
        deadline = time.monotonic() + 10
        while not (there / "config.json").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert content(there) == {"config.json": CONFIG}
