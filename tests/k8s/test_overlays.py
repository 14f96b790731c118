"""The manifests render, are what Kubernetes and KubeRay take, and name only what there is."""

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import carl
from carl.config import RunConfig
from carl.serving.app import ServingConfig
from carl.storage import Storage
from carl.task import get_task

REPOSITORY = Path(carl.__file__).parents[1]
K8S = REPOSITORY / "k8s"
SCHEMAS = REPOSITORY.parent / "shared" / "k8s-crds"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
KUBERNETES = "1.33"

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl to render overlays with")


@cache
def rendered(overlay: str) -> list[dict[str, Any]]:
    run = subprocess.run(
        ["kubectl", "kustomize", K8S / "overlays" / overlay], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    return list(yaml.safe_load_all(run.stdout))


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
def kuberay(kind: str) -> dict[str, Any]:
    definition = yaml.safe_load((SCHEMAS / f"ray.io_{kind.lower()}s.yaml").read_text())
    (version,) = (version for version in definition["spec"]["versions"] if version["name"] == "v1")
    schema = closed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}  # the API server's own
    return schema


def wrong(manifest: dict[str, Any]) -> list[str]:
    """What KubeRay's schemas, or Kubernetes's own, have against a manifest."""
    import kubernetes_validate

    if manifest["apiVersion"].startswith("ray.io/"):
        errors = jsonschema.Draft202012Validator(kuberay(manifest["kind"])).iter_errors(manifest)
        return [f"{error.json_path}: {error.message}" for error in errors]
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [str(error.message)]
    return []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_is_valid(overlay):
    kinds = {manifest["kind"] for manifest in rendered(overlay)}
    assert kinds & {"RayJob", "RayService"}
    if not SCHEMAS.exists():
        pytest.skip(f"KubeRay's schemas are not in {SCHEMAS}")
    assert [problem for manifest in rendered(overlay) for problem in wrong(manifest)] == []


@pytest.mark.skipif(not SCHEMAS.exists(), reason="KubeRay's schemas are not here")
def test_a_misspelt_field_would_be_found():
    (job,) = (manifest for manifest in rendered("cpu") if manifest["kind"] == "RayJob")
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    misspelt = [
        {**job, "spec": {**job["spec"], "entryPoint": "x"}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "x"}, "automountToken": False},
    ]
    assert [bool(wrong(manifest)) for manifest in misspelt] == [True, True]
    head["containers"][0]["securityContexts"] = {}
    try:
        assert wrong(job)
    finally:
        del head["containers"][0]["securityContexts"]


def pods(manifest: Any) -> Iterator[dict[str, Any]]:
    """The specs of all pods in a manifest."""
    if isinstance(manifest, dict):
        if "containers" in manifest:
            yield manifest
        for value in manifest.values():
            yield from pods(value)
    if isinstance(manifest, list):
        for value in manifest:
            yield from pods(value)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_unprivileged(overlay):
    found = [pod for manifest in rendered(overlay) for pod in pods(manifest)]
    assert found
    for pod in found:
        context = pod["securityContext"]
        assert context["runAsNonRoot"]
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"requests", "limits"} <= set(container["resources"])
            assert {"/tmp"} <= {mount["mountPath"] for mount in container["volumeMounts"]}
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ray_asks_for_tokens_on_ports_that_the_network_policy_lets_through(overlay):
    manifests = rendered(overlay)
    (cluster,) = (
        manifest["spec"].get("rayClusterSpec") or manifest["spec"]["rayClusterConfig"]
        for manifest in manifests
        if manifest["kind"].startswith("Ray")
    )
    assert cluster["authOptions"] == {"mode": "token"}
    (policy,) = (manifest for manifest in manifests if manifest["metadata"]["name"] == "carl-ray")
    (inside,) = policy["spec"]["ingress"]
    open_ports = {
        port for entry in inside["ports"] for port in range(entry["port"], entry.get("endPort", entry["port"]) + 1)
    }
    groups = [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]
    for group in groups:
        pinned = {name: int(value) for name, value in group["rayStartParams"].items() if name.endswith("port")}
        assert len(pinned) == 8
        assert set(pinned.values()) - {pinned["metrics-export-port"]} <= open_ports
        assert "carl/role" in group["template"]["metadata"]["labels"]
    declared = {
        port["containerPort"] for pod in pods(cluster["headGroupSpec"]) for port in pod["containers"][0]["ports"]
    }
    assert declared - {8080} <= open_ports


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_manifests_name_exists(overlay):
    for manifest in rendered(overlay):
        if manifest["kind"] == "ConfigMap":
            told = RunConfig.model_validate(yaml.safe_load(manifest["data"]["run.yaml"]))
            assert get_task(told.task)
            assert told.storage
            Storage(told.storage)  # reads the URI; nothing is reached yet
        if manifest["kind"] == "RayJob":
            python, script, config = manifest["spec"]["entrypoint"].split()
            assert python == "python"
            assert (REPOSITORY / Path(script).relative_to("/opt/carl")).is_file()
            assert config == "/etc/carl/run.yaml"
            assert manifest["spec"]["rayClusterSpec"]["rayVersion"] == pinned_version("ray")
        if manifest["kind"] == "RayService":
            (application,) = yaml.safe_load(manifest["spec"]["serveConfigV2"])["applications"]
            module, name = application["import_path"].split(":")
            assert f'"{name}"' in (REPOSITORY / f"{module.replace('.', '/')}.py").read_text()
            assert ServingConfig.model_validate(application["args"]).token_env
            assert manifest["spec"]["rayClusterConfig"]["rayVersion"] == pinned_version("ray")
        for pod in pods(manifest):
            assert {container["image"] for container in pod["containers"]} == {
                f"registry.example/carl:{carl.__version__}"
            }


def pinned_version(package: str) -> str:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    return next(line.split("==")[1] for line in lines if line.startswith(f"{package}=="))


def test_the_image_is_pinned_unprivileged_and_holds_what_the_manifests_run():
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    assert "USER 1000" in dockerfile
    assert "-c constraints.txt" in dockerfile
    for folder in ("jobs", "deployments"):
        assert f"COPY {folder} /opt/carl/{folder}" in dockerfile
    ignored = (REPOSITORY / ".dockerignore").read_text().split()
    assert ignored[0] == "*", "what is not named stays out"
    for name in ("carl", "jobs", "deployments", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        assert f"!{name}" in ignored
