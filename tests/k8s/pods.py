"""How an overlay's pods run and what they reach. A check takes manifests and says in words what is wrong with them."""

from collections.abc import Iterator

import jsonschema
import kubernetes_validate
import yaml

from tests.k8s.manifests import KUBERNETES, Manifest, applications, cluster_of, containers, groups_of, kuberay, named
from tests.k8s.manifests import pods as templates

UNPRIVILEGED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
ADDRESSES = {"node-manager", "object-manager", "runtime-env-agent", "dashboard-agent-grpc", "dashboard-agent-listen"}
GCS, DASHBOARD, SERVE, METRICS = 6379, 8265, 8000, 8080
NOT_FOR_WORK = {DASHBOARD: "dashboard", 52365: "agents", SERVE: "VLM", 10001: "server of Ray's client"}

Problems = Iterator[str]


def core_schemas(manifests: list[Manifest]) -> Problems:
    for manifest in manifests:
        if not manifest["apiVersion"].startswith("ray.io/"):
            try:
                kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{manifest['kind']}: {error.message}"


def kuberay_schemas(manifests: list[Manifest]) -> Problems:
    """Needs the schemas of KubeRay's custom resources."""
    for manifest in manifests:
        if manifest["apiVersion"].startswith("ray.io/"):
            for error in jsonschema.Draft202012Validator(kuberay(manifest["kind"])).iter_errors(manifest):
                yield f"{manifest['kind']}: {error.json_path}: {error.message}"


def privileges(manifests: list[Manifest]) -> Problems:
    for pod in templates(manifests):
        role, spec = pod["metadata"]["labels"]["carl/role"], pod["spec"]
        context = spec.get("securityContext", {})
        if not (context.get("runAsNonRoot") and context.get("runAsUser")):
            yield f"{role} may run as root"
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{role} has no seccomp profile"
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{role} is handed a token of the Kubernetes API"
        if spec["serviceAccountName"] not in named(manifests, "ServiceAccount"):
            yield f"{role} has an unknown service account"
        if (runtime := spec.get("runtimeClassName")) and runtime not in named(manifests, "RuntimeClass"):
            yield f"{role} has an unknown runtime class"
    for container in containers(manifests):
        if container.get("securityContext") != UNPRIVILEGED:
            yield f"{container['name']} is privileged"


def resources(manifests: list[Manifest]) -> Problems:
    for container in containers(manifests):
        for side in ("requests", "limits"):
            if missing := {"cpu", "memory"} - container.get("resources", {}).get(side, {}).keys():
                yield f"{container['name']} has no {side} of {', '.join(sorted(missing))}"
    for role, group in groups_of(manifests).items():
        spec = group["template"]["spec"]
        memory = int(spec["containers"][0]["resources"]["limits"]["memory"].removesuffix("Gi"))
        (shared,) = (volume["emptyDir"] for volume in spec["volumes"] if volume["name"] == "shm")
        if 0.3 * memory > int(shared["sizeLimit"].removesuffix("Gi")):
            yield f"{role}: Ray's object store, 30 % of the memory, does not fit into /dev/shm"


def volumes(manifests: list[Manifest]) -> Problems:
    """The root is read-only; what is written goes to an emptyDir with a limit."""
    for pod in templates(manifests):
        role, spec = pod["metadata"]["labels"]["carl/role"], pod["spec"]
        there = {volume["name"]: volume for volume in spec["volumes"]}
        mapped = {volume["configMap"]["name"] for volume in there.values() if "configMap" in volume}
        if missing := mapped - named(manifests, "ConfigMap").keys():
            yield f"{role} mounts {', '.join(missing)}, which is not there"
        for container in spec["containers"]:
            mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
            wanted = {"/tmp"} if role == "submitter" else {"/tmp", "/home/carl", "/dev/shm"}
            if missing := wanted - mounts.keys():
                yield f"{role} cannot write to {', '.join(sorted(missing))}"
            for path, mount in mounts.items():
                volume = there.get(mount["name"], {})
                if not mount.get("readOnly") and "sizeLimit" not in volume.get("emptyDir", {}):
                    yield f"{role} may write to {path}, which is no emptyDir with a limit"


def probes(manifests: list[Manifest]) -> Problems:
    for role, group in groups_of(manifests).items():
        container = group["template"]["spec"]["containers"][0]
        ours = {int(value) for name, value in group["rayStartParams"].items() if name.endswith("-port")}
        ours |= {port["containerPort"] for port in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if container.get(probe, {}).get("httpGet", {}).get("port") not in ours:
                yield f"{role}: no {probe} at a port of its own"


AUTOSCALER = "RAY_enable_autoscaler_v2"
"""What Ray believes without being told wherever KubeRay runs; carl then waits for nodes that never come."""


def tokens(manifests: list[Manifest]) -> Problems:
    if cluster_of(manifests).get("authOptions") != {"mode": "token"}:
        yield "Ray asks for no token"
    for application in applications(manifests):
        if not application["args"].get("token_env"):
            yield "the VLM asks for no token"
    for container in containers(manifests):
        for variable in container.get("env", []):
            if "value" in variable and variable["name"] != AUTOSCALER:
                yield f"{container['name']}: {variable['name']} is written out; secrets come by reference"
    if named(manifests, "Secret"):
        yield "a secret is written out"


def ports(manifests: list[Manifest]) -> Problems:
    """Every port of Ray is pinned, and the policies let those through to it who need it."""
    groups = groups_of(manifests)
    for role, group in groups.items():
        given = group["rayStartParams"]
        if missing := {f"{name}-port" for name in ADDRESSES | {"min-worker", "max-worker"}} - given.keys():
            yield f"{role}: Ray chooses its {', '.join(sorted(missing))}"
            continue
        work = {int(given[f"{name}-port"]) for name in ("node-manager", "object-manager")}
        work |= set(range(int(given["min-worker-port"]), int(given["max-worker-port"]) + 1))
        work |= {GCS} if role == "head" else set()
        for other in groups:
            watch = {int(given[f"{name}-port"]) for name in ADDRESSES} if other == "head" else set()
            if closed := (work | watch) - reach(manifests, other, role):
                yield f"{role}: no way through to port {min(closed)} from {other}"
        if int(given.get("metrics-export-port", 0)) != METRICS:
            yield f"{role}: metrics are not at {METRICS}"
        for port in group["template"]["spec"]["containers"][0]["ports"]:
            if port["containerPort"] not in {GCS, DASHBOARD, SERVE, METRICS}:
                yield f"{role}: port {port['containerPort']} is nobody's"
    submitters = named(manifests, "RayJob").values()
    if submitters and DASHBOARD not in reach(manifests, "submitter", "head"):
        yield f"head: no way through to port {DASHBOARD} from submitter"
    for service in named(manifests, "RayService").values():
        port = yaml.safe_load(service["spec"]["serveConfigV2"])["http_options"]["port"]
        for role, group in groups.items():
            if {"name": "serve", "containerPort": port} not in group["template"]["spec"]["containers"][0]["ports"]:
                yield f"{role}: no way through to Serve at {port}"


def reach(manifests: list[Manifest], role: str, other: str) -> set[int]:
    """Ports of pods of the role ``other`` that those of ``role`` reach: both sides have to let them through."""
    from_here = passed(manifests, {"carl/role": role}, {"carl/role": other}, "egress", "to")
    return from_here & passed(manifests, {"carl/role": other}, {"carl/role": role}, "ingress", "from")


def passed(manifests: list[Manifest], own: dict[str, str], others: dict[str, str], rules: str, peers: str) -> set[int]:
    """Ports that the policies of pods labelled ``own`` let through, to or from pods ``others`` of the namespace."""
    policies = [policy["spec"] for policy in named(manifests, "NetworkPolicy").values()]
    return {
        port
        for policy in policies
        if selects(policy["podSelector"], own)
        for rule in policy.get(rules, [])
        if any("namespaceSelector" not in peer and selects(peer["podSelector"], others)
               for peer in rule.get(peers, []) if "podSelector" in peer)
        for entry in rule["ports"]
        for port in range(entry["port"], entry.get("endPort", entry["port"]) + 1)
    }  # fmt: skip


def network(manifests: list[Manifest]) -> Problems:
    """Every pod is under a policy either way; one that runs programs reaches pods of ours, name servers and storage."""
    policies = [policy["spec"] for policy in named(manifests, "NetworkPolicy").values()]
    for pod in templates(manifests):
        labels = pod["metadata"]["labels"]
        role = labels.get("carl/role", "a pod")
        own = [policy for policy in policies if selects(policy["podSelector"], labels)]
        for way in ("Ingress", "Egress"):
            if not any(way in policy["policyTypes"] for policy in own):
                yield f"{role} is under no policy for {way}"
        for rule in (rule for policy in own for rule in policy.get("egress", [])):
            if not rule.get("to") or not rule.get("ports"):
                yield f"{role} may reach anything"
            beyond = any("ipBlock" in peer or peer.get("namespaceSelector") == {} for peer in rule.get("to", []))
            if beyond and offers_cpus(groups_of(manifests), role):
                yield f"{role} may reach more than the cluster, name servers and the storage, and run programs"
    yield from (f"{role} may reach the {name}, and run programs" for role, name in beyond_work(manifests))


def beyond_work(manifests: list[Manifest]) -> Iterator[tuple[str, str]]:
    """Roles of workers that run programs, and what of other pods they reach that work does not need."""
    groups = groups_of(manifests)
    for role in (role for role in groups if role != "head" and offers_cpus(groups, role)):
        found = set().union(*(reach(manifests, role, other) for other in groups))
        yield from ((role, name) for port, name in NOT_FOR_WORK.items() if port in found)


def offers_cpus(groups: dict[str, Manifest], role: str) -> bool:
    return role in groups and groups[role]["rayStartParams"].get("num-cpus") != "0"


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    exist = {entry["key"] for entry in selector.get("matchExpressions", []) if entry["operator"] == "Exists"}
    return exist <= labels.keys() and selector.get("matchLabels", {}).items() <= labels.items()


def disruptions(manifests: list[Manifest]) -> Problems:
    """Ray's resources have no scale subresource: of their pods Kubernetes can only count how many are left."""
    kept = set()
    for name, budget in named(manifests, "PodDisruptionBudget").items():
        spec = budget["spec"]
        if not isinstance(spec.get("minAvailable"), int) or "maxUnavailable" in spec:
            yield f"{name} does not count pods that are left"
        chosen = {role for role in groups_of(manifests) if selects(spec["selector"], {"carl/role": role})}
        if not chosen:
            yield f"{name} is about no pod"
        kept |= chosen
    yield from (f"{role} has no disruption budget" for role in groups_of(manifests).keys() - kept)


def autoscaling(manifests: list[Manifest]) -> Problems:
    cluster = cluster_of(manifests)
    for group in cluster["workerGroupSpecs"]:
        if not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
            yield f"{group['groupName']}: {group['replicas']} replicas are out of its bounds"
        if group["minReplicas"] < group["maxReplicas"] and not cluster.get("enableInTreeAutoscaling"):
            yield f"{group['groupName']} would never change its size"
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    told = {variable["name"]: variable.get("value") for variable in head.get("env", [])}
    if told.get(AUTOSCALER) != str(int(bool(cluster.get("enableInTreeAutoscaling")))):
        yield f"{AUTOSCALER} does not say whether there is an autoscaler"
    if cluster.get("enableInTreeAutoscaling") and not cluster["autoscalerOptions"].get("idleTimeoutSeconds"):
        yield "nothing says when a pod is idle"
