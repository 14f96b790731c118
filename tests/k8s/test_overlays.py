"""Every overlay renders, is what Kubernetes and KubeRay take, and names what there is; and the checks would tell."""

import copy
import shutil
from collections.abc import Callable, Iterator

import pytest
import yaml

from tests.k8s.contents import demands, entry_points, images, serving
from tests.k8s.manifests import OVERLAYS, SCHEMAS, Manifest, cluster_of, groups_of, named, pods, rendered
from tests.k8s.pods import (
    autoscaling,
    core_schemas,
    disruptions,
    kuberay_schemas,
    network,
    ports,
    privileges,
    probes,
    resources,
    tokens,
    volumes,
)

Check = Callable[[list[Manifest]], Iterator[str]]
Break = Callable[[list[Manifest]], object]

CHECKS: tuple[Check, ...] = (
    core_schemas, privileges, resources, volumes, probes, tokens, ports, network, disruptions, autoscaling,
    images, entry_points, demands, serving,
)  # fmt: skip

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl to render overlays with")


def test_there_are_overlays_for_every_kind() -> None:
    assert {"cpu", "gpu", "serve", "sweep", "cluster", "gvisor"} <= set(OVERLAYS)
    kinds = {manifest["kind"] for overlay in OVERLAYS for manifest in rendered(overlay)}
    assert {"RayJob", "RayService", "RayCluster"} <= kinds


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_sound(overlay: str) -> None:
    assert [problem for check in CHECKS for problem in check(rendered(overlay))] == []


@pytest.mark.skipif(not SCHEMAS.exists(), reason=f"KubeRay's schemas are not in {SCHEMAS}")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kuberay_takes_an_overlay(overlay: str) -> None:
    assert list(kuberay_schemas(rendered(overlay))) == []


@pytest.mark.parametrize("overlay", ["gpu", "serve", "sweep", "cluster"])
def test_workers_come_from_nothing(overlay: str) -> None:
    workers = cluster_of(rendered(overlay))["workerGroupSpecs"]
    assert [(group["minReplicas"], group["replicas"]) for group in workers] == [(0, 0)] * len(workers)
    assert cluster_of(rendered(overlay))["enableInTreeAutoscaling"]


def test_gpus_are_where_they_are_needed() -> None:
    groups = groups_of(rendered("gpu"))
    limits = {role: group["template"]["spec"]["containers"][0]["resources"]["limits"] for role, group in groups.items()}
    assert {role for role in groups if limits[role].get("nvidia.com/gpu")} == {"learner", "vlm"}
    assert [role for role in groups if groups[role].get("resources")] == ["vlm"]


def test_programs_run_in_gvisor() -> None:
    (runtime,) = named(rendered("gvisor"), "RuntimeClass")
    classes = {
        role: group["template"]["spec"].get("runtimeClassName") for role, group in groups_of(rendered("gvisor")).items()
    }
    assert classes == {"head": None, "rollouts": runtime}


# Each check has to tell: a check, an overlay, what is then said, and what is broken in it.


def group(manifests: list[Manifest], role: str = "rollouts") -> Manifest:
    return groups_of(manifests)[role]


def spec(manifests: list[Manifest], role: str, part: str = "spec") -> Manifest:
    (found,) = (pod[part] for pod in pods(manifests) if pod["metadata"]["labels"]["carl/role"] == role)
    return found


def first(manifests: list[Manifest], role: str = "head") -> Manifest:
    return spec(manifests, role)["containers"][0]


def submitter(manifests: list[Manifest]) -> Manifest:
    return first(manifests, "submitter")


def scaler(manifests: list[Manifest]) -> Manifest:
    return cluster_of(manifests)["autoscalerOptions"]


def policy(manifests: list[Manifest], name: str) -> Manifest:
    return named(manifests, "NetworkPolicy")[name]["spec"]


def storage(manifests: list[Manifest]) -> list[Manifest]:
    return policy(manifests, "carl-storage")["egress"]


def opened(manifests: list[Manifest], port: int) -> None:
    """All pods of a run may reach a port of all others."""
    for rules in (policy(manifests, "carl-ray")["ingress"], policy(manifests, "carl-ray")["egress"]):
        rules[0]["ports"].append({"port": port})


def budget(manifests: list[Manifest], **changes: object) -> None:
    named(manifests, "PodDisruptionBudget")["carl-rollouts"]["spec"].update(changes)


def entry(manifests: list[Manifest], point: str) -> None:
    named(manifests, "RayJob")["carl"]["spec"]["entrypoint"] = point


def retold(manifests: list[Manifest], **changes: object) -> None:
    """The run is told something else."""
    data = named(manifests, "ConfigMap")["carl-config"]["data"]
    data["run.yaml"] = yaml.safe_dump({**yaml.safe_load(data["run.yaml"]), **changes})


def rewritten(manifests: list[Manifest], old: str, new: str) -> None:
    """Serve is told something else."""
    service = named(manifests, "RayService")["carl-vlm"]["spec"]
    assert old in service["serveConfigV2"]
    service["serveConfigV2"] = service["serveConfigV2"].replace(old, new)


BROKEN: list[tuple[Check, str, str, Break]] = [
    (core_schemas, "cpu", "dditional", lambda m: named(m, "ServiceAccount")["carl"].update(automount=False)),
    (core_schemas, "cpu", "dditional", lambda m: budget(m, minimum=1)),
    (kuberay_schemas, "cpu", "entryPoint", lambda m: named(m, "RayJob")["carl"]["spec"].update(entryPoint="x")),
    (kuberay_schemas, "cpu", "securityContexts", lambda m: first(m).update(securityContexts={})),
    (kuberay_schemas, "cpu", "password", lambda m: cluster_of(m).update(authOptions={"mode": "password"})),
    (kuberay_schemas, "cpu", "integer", lambda m: group(m).update(minReplicas="none")),
    (privileges, "cpu", "head may run as root", lambda m: spec(m, "head")["securityContext"].pop("runAsNonRoot")),
    (privileges, "cpu", "may run as root", lambda m: spec(m, "submitter")["securityContext"].update(runAsUser=0)),
    (privileges, "cpu", "no seccomp profile", lambda m: spec(m, "rollouts")["securityContext"].pop("seccompProfile")),
    (privileges, "cpu", "is privileged", lambda m: first(m)["securityContext"]["capabilities"].update(add=["KILL"])),
    (privileges, "gpu", "autoscaler is", lambda m: cluster_of(m)["autoscalerOptions"].pop("securityContext")),
    (privileges, "cpu", "Kubernetes API", lambda m: spec(m, "rollouts").pop("automountServiceAccountToken")),
    (privileges, "cpu", "unknown service", lambda m: spec(m, "rollouts").update(serviceAccountName="default")),
    (privileges, "gvisor", "unknown runtime", lambda m: spec(m, "rollouts").update(runtimeClassName="kata")),
    (resources, "cpu", "no limits of cpu, memory", lambda m: submitter(m)["resources"].pop("limits")),
    (resources, "gpu", "no limits of memory", lambda m: scaler(m)["resources"]["limits"].pop("memory")),
    (resources, "cpu", "no requests of cpu", lambda m: first(m)["resources"]["requests"].pop("cpu")),
    (resources, "cpu", "does not fit", lambda m: first(m)["resources"]["limits"].update(memory="64Gi")),
    (volumes, "cpu", "cannot write to /tmp", lambda m: first(m)["volumeMounts"].pop(0)),
    (volumes, "cpu", "no emptyDir", lambda m: spec(m, "head")["volumes"][1].pop("emptyDir")),
    (volumes, "cpu", "not there", lambda m: m.remove(named(m, "ConfigMap")["carl-config"])),
    (probes, "cpu", "head: no readinessProbe", lambda m: first(m).pop("readinessProbe")),
    (probes, "serve", "no readinessProbe", lambda m: first(m, "vlm")["readinessProbe"]["httpGet"].update(port=8001)),
    (tokens, "cpu", "Ray asks for no token", lambda m: cluster_of(m).pop("authOptions")),
    (tokens, "serve", "VLM asks for no token", lambda m: rewritten(m, "token_env: CARL_VLM_API_KEY", "threads: 1")),
    (tokens, "cpu", "written out", lambda m: first(m).update(env=[{"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}])),
    (tokens, "cpu", "written out", lambda m: m.append({**m[0], "kind": "Secret"})),
    (ports, "cpu", "Ray chooses its max-worker", lambda m: group(m)["rayStartParams"].pop("max-worker-port")),
    (ports, "cpu", "port 7000", lambda m: group(m)["rayStartParams"].update({"node-manager-port": "7000"})),
    (ports, "cpu", "port 9999", lambda m: first(m)["ports"].append({"containerPort": 9999})),
    (ports, "cpu", "6379 from rollouts", lambda m: policy(m, "carl-ray")["egress"].pop(0)),
    (ports, "cpu", "6382 from head", lambda m: policy(m, "carl-ray")["ingress"].pop()),
    (ports, "cpu", "8265 from submitter", lambda m: policy(m, "carl-submitter")["egress"].clear()),
    (ports, "cpu", "metrics", lambda m: group(m)["rayStartParams"].update({"metrics-export-port": "8081"})),
    (ports, "serve", "Serve at 8001", lambda m: rewritten(m, "port: 8000", "port: 8001")),
    (
        network,
        "cpu",
        "rollouts may reach more",
        lambda m: storage(m)[0]["to"].append({"ipBlock": {"cidr": "0.0.0.0/0"}}),
    ),
    (network, "gpu", "rollouts may reach more", lambda m: policy(m, "carl-hub").update(podSelector={})),
    (network, "gpu", "vlm may reach more", lambda m: group(m, "vlm")["rayStartParams"].pop("num-cpus")),
    (network, "gpu", "head may reach more", lambda m: group(m, "head")["rayStartParams"].update({"num-cpus": "4"})),
    (network, "cpu", "rollouts may reach the dashboard", lambda m: opened(m, 8265)),
    (network, "cpu", "rollouts may reach the agents", lambda m: opened(m, 52365)),
    (network, "cpu", "rollouts may reach the VLM", lambda m: opened(m, 8000)),
    (network, "cpu", "may reach anything", lambda m: storage(m).append({})),
    (network, "cpu", "no policy for Ingress", lambda m: spec(m, "head", "metadata")["labels"].clear()),
    (disruptions, "cpu", "does not count", lambda m: budget(m, minAvailable="50%")),
    (disruptions, "cpu", "is about no pod", lambda m: budget(m, selector={"matchLabels": {"carl/role": "no"}})),
    (disruptions, "cpu", "head has no", lambda m: m.remove(named(m, "PodDisruptionBudget")["carl-head"])),
    (autoscaling, "gpu", "never change its size", lambda m: cluster_of(m).pop("enableInTreeAutoscaling")),
    (autoscaling, "cpu", "whether there is an autoscaler", lambda m: first(m).pop("env")),
    (autoscaling, "gpu", "whether there is an autoscaler", lambda m: first(m)["env"][0].update(value="0")),
    (autoscaling, "gpu", "out of its bounds", lambda m: group(m).update(replicas=99)),
    (autoscaling, "gpu", "when a pod is idle", lambda m: scaler(m).pop("idleTimeoutSeconds")),
    (images, "gpu", "ray-worker runs", lambda m: first(m, "vlm").update(image="registry.example/carl:0.1.0")),
    (images, "cpu", "ray-head runs", lambda m: first(m).update(image="registry.example/carl:latest")),
    (images, "cpu", "another Ray", lambda m: cluster_of(m).update(rayVersion="2.9.0")),
    (entry_points, "cpu", "no jobs/walk.py", lambda m: entry(m, "python /opt/carl/jobs/walk.py /etc/carl/run.yaml")),
    (entry_points, "cpu", "no entry point", lambda m: entry(m, "sh -c true")),
    (entry_points, "cpu", "no /etc/carl/a.yaml", lambda m: entry(m, "python /opt/carl/jobs/run.py /etc/carl/a.yaml")),
    (entry_points, "cpu", "env_runner", lambda m: retold(m, train={"env_runner": 2})),
    (entry_points, "cpu", "DoorKey-9x9", lambda m: retold(m, task="DoorKey-9x9")),
    (entry_points, "cpu", "nowhere", lambda m: retold(m, storage="nowhere://x")),
    (demands, "cpu", "no group has room for its runners", lambda m: retold(m, train={"env_runners": 64})),
    (demands, "gpu", "no group has room for its VLM", lambda m: groups_of(m)["vlm"].pop("resources")),
    (demands, "gpu", "room for its learners", lambda m: retold(m, train={"learners": 3, "gpus_per_learner": 1})),
    (serving, "serve", "no deployments.vlm:construct", lambda m: rewritten(m, ":build", ":construct")),
    (serving, "serve", "VLM refuses", lambda m: rewritten(m, "max_batch_size", "batch")),
    (serving, "serve", "Serve refuses", lambda m: rewritten(m, "import_path:", "import:")),
    (serving, "serve", "has not the VLM's token", lambda m: first(m, "vlm").pop("envFrom")),
]


@pytest.mark.parametrize(
    ("check", "overlay", "said", "breaks"), BROKEN, ids=lambda value: getattr(value, "__name__", None)
)
def test_what_is_broken_is_told(check: Check, overlay: str, said: str, breaks: Break) -> None:
    if check is kuberay_schemas and not SCHEMAS.exists():
        pytest.skip(f"KubeRay's schemas are not in {SCHEMAS}")
    manifests = copy.deepcopy(rendered(overlay))
    breaks(manifests)
    told = list(check(manifests))
    assert any(said in problem for problem in told), told
