"""Room for the processes of a run: what is missing is said, what is busy is waited for, and one run looks at a time."""

import os
import subprocess
import sys
import threading

import pytest
import ray
from ray.autoscaler.v2.sdk import get_cluster_resource_state
from ray.util import placement_group_table

from carl.cluster import resources
from carl.cluster.resources import Need, missing_of, room_for
from carl.errors import ResourceError

pytestmark = pytest.mark.usefixtures("ray_cluster")

GPU_NODE = {"CPU": 8.0, "GPU": 1.0, "memory": 1e9}
CPU_NODE = {"CPU": 4.0}

HOLDS = """
import time
from carl.cluster.session import ray_running
from carl.cluster.resources import Need, room_for
with ray_running(), room_for([Need("env runner", 1, {"CPU": 1}, "")]):
    print("has room", flush=True)
    time.sleep(60)
"""


def runners(count: int, **each: float) -> Need:
    return Need("env runner", count, {"CPU": 1.0} | each, "train.env_runners")


def learners(count: int, gpus: float) -> Need:
    return Need("learner", count, {"CPU": 0.0, "GPU": gpus}, "train.learners")


def test_every_process_has_to_fit_on_a_node():
    nodes = [GPU_NODE, GPU_NODE, CPU_NODE]
    assert missing_of([runners(1), learners(1, 2)], nodes) == (
        "no node has room for a further learner (2 GPUs): nodes have 0 GPUs; 1 GPU"
    )
    assert missing_of([runners(1), learners(3, 1)], nodes).startswith("after 2 of them no node has room")
    assert missing_of([learners(2, 1), runners(20)], nodes) == ""


def test_fractions_share_a_gpu():
    nodes, learner = [GPU_NODE, CPU_NODE], learners(1, 0.5)
    assert missing_of([runners(4, CPU=2, GPU=0.125), learner], nodes) == ""
    assert "a further env runner" in missing_of([runners(5, CPU=2, GPU=0.125), learner], nodes)


def test_what_no_node_has_is_said_at_once(monkeypatch):
    """Without asking Ray for it, and so without waiting."""
    monkeypatch.setattr(resources, "_granted", None)
    wanted = r"1 VLM server \(1 GPU, 0\.5 vlms\), .* in all: .* nodes have 0 GPUs, 0 vlms\. Set vlm\.resources"
    with (
        pytest.raises(ResourceError, match=wanted),
        room_for([Need("VLM server", 1, {"CPU": 0, "GPU": 1, "vlm": 0.5}, "vlm.resources")]),
    ):
        pass


def test_nothing_is_room_enough_for_nothing(monkeypatch):
    monkeypatch.setattr(resources, "_turn", None)
    with room_for([runners(0), Need("VLM server", 1, {"CPU": 0, "GPU": 0.0}, "")]):
        pass


@pytest.fixture
def held_cpu():
    """What holds one of the two CPUs."""

    @ray.remote(num_cpus=1)
    class Holder:
        def ready(self) -> bool:
            return True

    holder = Holder.remote()
    ray.get(holder.ready.remote())
    yield holder
    ray.kill(holder)


def test_cpus_that_others_hold_are_waited_for_a_while_and_then_named(monkeypatch, held_cpu):
    monkeypatch.setattr(resources, "RESOURCE_PATIENCE_S", 0.5)
    with (
        pytest.raises(ResourceError, match=r"has \(2 CPUs\) too little is free: after 1 of them .* others are done"),
        room_for([runners(2)]),
    ):
        pass
    monkeypatch.setattr(resources, "RESOURCE_PATIENCE_S", 30)
    threading.Timer(0.5, ray.kill, [held_cpu]).start()
    with room_for([runners(2)]):
        assert not _demand(), "what was held for the processes is free for them"


@pytest.mark.usefixtures("held_cpu")
@pytest.mark.parametrize("count", [2, 3])
def test_an_autoscaler_is_asked_for_what_is_busy_or_not_there_and_waited_for(monkeypatch, caplog, count):
    monkeypatch.setattr(resources, "grows", lambda: True)
    monkeypatch.setattr(resources, "RESOURCE_PATIENCE_S", 1.0)
    monkeypatch.setattr(resources, "GROWTH_PATIENCE_S", 2.5)
    seen: list[dict[str, float]] = []
    threading.Timer(0.5, lambda: seen.extend(_demand())).start()
    monkeypatch.setattr(resources, "alone", lambda: False)
    wanted = rf"{count} CPUs in all, and the autoscaler had 2\.5 s: .*after {count - 1} of them"
    with pytest.raises(ResourceError, match=wanted), room_for([runners(count)]):
        pass
    assert seen == [{"CPU": 1.0}] * count
    assert caplog.text.count("too little is free") == 1
    assert "another run" not in caplog.text, "there is none: its own turn was over"
    assert {group["state"] for group in placement_group_table().values()} == {"REMOVED"}


def test_runs_on_one_cluster_take_turns_and_a_killed_one_frees_its(monkeypatch, caplog):
    monkeypatch.setattr(resources, "alone", lambda: False)
    monkeypatch.setattr(resources, "TURN_PATIENCE_S", 0.5)
    address = ray.get_runtime_context().gcs_address
    environment = os.environ | {"RAY_ADDRESS": address}
    with subprocess.Popen([sys.executable, "-c", HOLDS], env=environment, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "has room\n"
        with pytest.raises(ResourceError, match="other runs have been getting"), room_for([runners(2)]):
            pass
        assert caplog.text.count("another run is getting its processes") == 1
        other.kill()
    monkeypatch.setattr(resources, "TURN_PATIENCE_S", 60)
    for _ in range(2):
        with room_for([runners(2)]):
            assert len([actor for actor in ray.util.list_named_actors(True) if actor["namespace"] == "carl"]) == 1


def _demand() -> list[dict[str, float]]:
    """What an autoscaler is told that placement groups wait for."""
    state = get_cluster_resource_state(ray._private.worker.global_worker.gcs_client)
    bundles = [bundle for group in state.pending_gang_resource_requests for bundle in group.bundle_selectors]
    return [dict(request.resources_bundle) for bundle in bundles for request in bundle.resource_requests]
