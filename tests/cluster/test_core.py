"""Ray that does not start, or whose processes end: one sentence, after one more try."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray import exceptions
from ray._private import worker

from carl.cluster import core
from carl.cluster import session as cluster
from carl.cluster.core import Core, CoreLostError, clearly, lost, watched
from carl.errors import ResourceError, TaskError
from carl.methods.code import CodeConfig
from carl.runs import pipeline
from carl.runs.directory import STAGES
from carl.runs.pipeline import Pipeline


@pytest.mark.parametrize(("failures", "tries"), [(1, 2), (2, 2)])
def test_a_ray_that_does_not_come_up_is_started_once_more(monkeypatch, caplog, failures, tries):
    began: list[dict[str, object]] = []

    def init(**settings: object) -> None:
        began.append(settings)
        if len(began) <= failures:
            raise Exception("The current node timed out during startup")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    if failures < 2:
        cluster._start()
    else:
        with pytest.raises(ResourceError, match="Ray does not start here: The current node timed out"):
            cluster._start()
    assert len(began) == tries
    assert "started again: The current node timed out" in caplog.text


def test_an_address_that_is_none_is_not_tried_again(monkeypatch):
    tries: list[object] = []

    def init(**settings: object) -> None:
        tries.append(settings)
        raise ValueError("not an address")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    with pytest.raises(ResourceError, match="RAY_ADDRESS=nowhere cannot be used: not an address"):
        cluster._start()
    assert len(tries) == 1


def in_a_task(error: Exception) -> Exception:
    return exceptions.RayTaskError("collect_part", "a traceback\n of many lines", error).as_instanceof_cause()


def unpickled(module: str) -> Exception:
    """What Ray makes of a module that a process of its own does not find."""
    return exceptions.RaySystemError(ModuleNotFoundError(f"No module named '{module}'"), "Traceback ...")


@pytest.mark.parametrize(
    ("raised", "kind", "said"),
    [
        (
            exceptions.OutOfMemoryError("1 worker(s) were killed\nMemory usage"),
            ResourceError,
            "memory ran out .1 w",
        ),
        (in_a_task(exceptions.OutOfMemoryError("killed")), ResourceError, "memory ran out"),
        (exceptions.WorkerCrashedError(), ResourceError, "ended unexpectedly, as when memory runs out"),
        (exceptions.ActorDiedError(), ResourceError, "ended unexpectedly, as when memory runs out"),
        (exceptions.LocalRayletDiedError(), CoreLostError, "core fails in mid-run: The task's local raylet died"),
        (in_a_task(unpickled("none.such")), TaskError, r"cannot import .* \(No module named 'none\.such'\): install"),
        (in_a_task(TaskError("look for NaN")), TaskError, "^look for NaN$"),
        (TaskError("look for NaN"), TaskError, "^look for NaN$"),
        (KeyError("theirs"), KeyError, "theirs"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_ray_raises_of_its_processes_is_one_sentence(raised, kind, said):
    with pytest.raises(kind, match=said) as caught, clearly():
        raise raised
    assert "\n" not in str(caught.value)


def test_ctrl_c_stays_what_it_is():
    with pytest.raises(KeyboardInterrupt), clearly():
        raise KeyboardInterrupt


def test_a_core_that_is_lost_interrupts_whoever_waits_for_it(monkeypatch):
    monkeypatch.setattr(core, "LOOK_S", 0.01)
    looks = iter(["", "", "its raylet ended with exit code -9"])
    with (
        pytest.raises(CoreLostError, match="its raylet ended with exit code -9; the same command goes on"),
        clearly(),
        cluster._terminated_like_interrupted(),
        watched(lambda: next(looks)),
    ):
        time.sleep(60)
    assert lost()
    with watched(lambda: ""):
        assert not lost(), "another Ray has another core"


def test_a_core_is_gone_when_one_of_its_processes_ended(monkeypatch):
    codes = {"gcs_server": None, "raylet": None}
    processes = {name: [SimpleNamespace(process=SimpleNamespace(poll=lambda name=name: codes[name]))] for name in codes}
    monkeypatch.setattr(worker, "_global_node", SimpleNamespace(all_processes=processes))
    assert Core().gone() == ""
    codes["gcs_server"] = -9
    assert Core().gone() == "its gcs_server ended with exit code -9"


def test_a_clusters_core_is_gone_when_it_does_not_answer_for_long(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(worker, "_global_node", SimpleNamespace(all_processes={}, gcs_address=address))
        remote = Core()
        monkeypatch.setattr(core, "CLUSTER_PATIENCE_S", 0.0)
        assert remote.gone() == ""
    assert f"{address} does not answer" in remote.gone()
    monkeypatch.setattr(core, "CLUSTER_PATIENCE_S", 40.0)
    assert remote.gone() == "", "a network may be gone for a while"


@pytest.fixture
def rays(monkeypatch) -> list[str]:
    """What happens to the Rays of a run, which are none."""
    seen: list[str] = []

    @contextmanager
    def running(progress: object) -> Iterator[None]:
        seen.append("start")
        try:
            yield
        finally:
            seen.append("stop")

    monkeypatch.setattr(pipeline, "ray_running", running)
    return seen


@pytest.mark.parametrize("losses", [1, 2])
def test_a_run_goes_on_with_another_ray_once(
    tmp_path: Path, rays: list[str], monkeypatch: pytest.MonkeyPatch, losses: int
) -> None:
    run = Pipeline(CodeConfig(task="DoorKey-5x5", run_dir=tmp_path))
    tries: list[str] = []

    def collect(_: object) -> None:
        tries.append("collect")
        if len(tries) <= losses:
            raise exceptions.LocalRayletDiedError

    stages = (replace(run.method.stages[0], run=collect), *run.method.stages[1:])
    run.method = replace(run.method, stages=stages)
    monkeypatch.setattr(pipeline, "stages_of", lambda _: stages)
    if losses == 1:
        run.run(("collect",))
        assert run.dir.stages()["collect"]["done"]
    else:
        with pytest.raises(CoreLostError, match="the same command goes on"):
            run.run(("collect",))
        assert run.dir.read(STAGES)["collect"]["failed"]["error"] == "CoreLostError"
    assert rays == ["start", "stop"] * 2
    assert len(tries) == 2
