"""Overlays as kustomize renders them, and the schemas that they have to meet."""

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import carl

REPOSITORY = Path(carl.__file__).parents[1]
OVERLAYS = sorted(path.parent.name for path in (REPOSITORY / "k8s" / "overlays").glob("*/kustomization.yaml"))
SCHEMAS = REPOSITORY.parent / "shared" / "k8s-crds"
KUBERNETES = "1.33"

Manifest = dict[str, Any]


@cache
def rendered(overlay: str) -> list[Manifest]:
    """What ``kubectl apply -k`` would apply."""
    folder = REPOSITORY / "k8s" / "overlays" / overlay
    run = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    return list(yaml.safe_load_all(run.stdout))


def named(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    """The manifests of a kind, by name."""
    return {manifest["metadata"]["name"]: manifest for manifest in manifests if manifest["kind"] == kind}


def cluster_of(manifests: list[Manifest]) -> Manifest:
    """The specification of an overlay's one Ray cluster."""
    (ray,) = (manifest for manifest in manifests if manifest["apiVersion"] == "ray.io/v1")
    field = {"RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}.get(ray["kind"])
    return ray["spec"][field] if field else ray["spec"]


def groups_of(manifests: list[Manifest]) -> dict[str, Manifest]:
    """A Ray cluster's groups of pods by the name of their role."""
    cluster = cluster_of(manifests)
    groups = [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]
    return {group["template"]["metadata"]["labels"].get("carl/role", "a pod"): group for group in groups}


def pods(part: Any) -> Iterator[Manifest]:
    """All pod templates in a part of a manifest."""
    if isinstance(part, dict):
        if "containers" in part.get("spec", ()):
            yield part
        for value in part.values():
            yield from pods(value)
    if isinstance(part, list):
        for value in part:
            yield from pods(value)


def containers(manifests: list[Manifest]) -> Iterator[Manifest]:
    """All containers, the one included that KubeRay makes of the autoscaler's options."""
    for pod in pods(manifests):
        yield from pod["spec"]["containers"]
    if cluster_of(manifests).get("enableInTreeAutoscaling"):
        yield {"name": "autoscaler", **cluster_of(manifests).get("autoscalerOptions", {})}


def applications(manifests: list[Manifest]) -> list[Manifest]:
    """The applications of a RayService."""
    services = named(manifests, "RayService").values()
    return [entry for service in services for entry in yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]]


def closed(schema: Any) -> Any:
    """The same schema, where what it does not name is an error."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    tighter = {key: closed(value) for key, value in schema.items()}
    if "properties" in schema and "additionalProperties" not in schema:
        tighter["additionalProperties"] = False
    return tighter


@cache
def kuberay(kind: str) -> Manifest:
    """KubeRay's schema of a kind, closed."""
    definition = yaml.safe_load((SCHEMAS / f"ray.io_{kind.lower()}s.yaml").read_text())
    (version,) = (version for version in definition["spec"]["versions"] if version["name"] == "v1")
    schema: Manifest = closed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}  # the API server's own
    return schema
