"""Log lines for programs: each one JSON, with the run and the program it is about."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from carl.cluster import logs
from carl.methods.code import CodeConfig


@pytest.fixture(autouse=True)
def _nothing_known():
    logs.about(run=None, program=None)
    yield
    logs.about(run=None, program=None)


def line(record: logging.LogRecord) -> dict:
    text = logs.JsonLines().format(record)
    assert "\n" not in text
    return json.loads(text)


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.getLogger("carl.test").makeRecord(
        "carl.test", logging.INFO, "f", 1, message, args, None, extra=extra
    )
    made.created = 0.25
    return made


def test_a_record_is_one_line_with_what_it_is_about() -> None:
    logs.about(run="corridor-7", program="abc")
    said = {"time": "1970-01-01T00:00:00.250+00:00", "level": "INFO", "logger": "carl.test", "message": "at 3\nor 4"}
    assert line(record("at %d\nor 4", 3)) == said | {"run": "corridor-7", "program": "abc"}
    logs.about(program=None)
    assert line(record("at %d\nor 4", 3)) == said | {"run": "corridor-7"}


def test_extras_are_fields_and_exceptions_are_told() -> None:
    assert line(record("x", env_steps=3, where=Path("a")))["env_steps"] == 3
    assert line(record("x", where=Path("a")))["where"] == "a"
    noted = record("x")
    noted._ray_timestamp_ns = 3
    assert "_ray_timestamp_ns" not in line(noted), "others keep notes on records too"
    try:
        raise ValueError("no")
    except ValueError:
        failed = record("x")
        failed.exc_info = sys.exc_info()
    assert line(failed)["exception"].endswith("ValueError: no")


def test_a_run_is_named_by_task_seed_and_a_directory_of_another_name() -> None:
    assert CodeConfig(task="DoorKey-8x8", seed=2).id == "DoorKey-8x8-2"
    assert CodeConfig(task="my.tasks:ICE", seed=2).id == "my.tasks.ICE-2"
    assert CodeConfig(task="DoorKey-8x8", run_dir=Path("/tmp/again")).id == "DoorKey-8x8-0/again"


def test_an_error_of_the_command_is_a_json_line_and_nothing_else_is_said() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "carl", "run", "DoorKey-9x9"],
        env=os.environ | {logs.LOG: "json"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    (said,) = (json.loads(text) for text in found.stderr.splitlines())
    assert (said["level"], said["logger"]) == ("ERROR", "carl.cli")
    assert "DoorKey-8x8" in said["message"]


def test_what_a_process_is_about_for_a_while_and_whom_it_joins() -> None:
    logs.about(run="corridor-7", program="abc")
    with logs.for_a_while(program=None):
        assert logs.origin() == {"run": "corridor-7"}
    assert logs.origin() == {"run": "corridor-7", "program": "abc"}
    logs.join({"run": "corridor-7"})
    assert logs.origin() == {"run": "corridor-7"}, "an evaluating process goes from arm to arm"


@pytest.mark.usefixtures("ray_cluster")
def test_another_process_joins_and_says_the_same() -> None:
    logs.about(run="corridor-7")

    @ray.remote(num_cpus=0, runtime_env={"env_vars": {logs.LOG: "json"}})
    def work(origin):
        logs.join(origin)
        logs.about(program="abc")
        (handler,) = logging.getLogger().handlers
        record = logging.getLogger("carl.x").makeRecord("carl.x", logging.INFO, "f", 1, "hello", (), None)
        return handler.format(record), logging.getLogger("carl.x").isEnabledFor(logging.INFO)

    text, enabled = ray.get(work.remote(logs.origin()))
    assert enabled
    assert {key: json.loads(text)[key] for key in ("message", "run", "program")} == {
        "message": "hello",
        "run": "corridor-7",
        "program": "abc",
    }


def test_a_record_does_not_steer_the_terminal():
    record = logging.makeLogRecord(
        {"msg": "%s is refused", "args": ("\x1b[2Jtake\u202e",), "levelname": "WARNING", "name": "carl"}
    )
    assert logs.Lines(logs.PLAIN).format(record) == "WARNING carl: take is refused"


@pytest.mark.parametrize(("screen", "driver"), [(None, "dummy"), ("WAYLAND_DISPLAY", None)])
def test_pygame_draws_to_memory_only_where_there_is_no_screen(screen, driver, monkeypatch):
    monkeypatch.setattr(logs.os, "environ", {screen: "wayland-0"} if screen else {})
    logs.quiet()
    assert logs.os.environ.get("SDL_VIDEODRIVER") == driver
