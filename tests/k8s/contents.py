"""What an overlay names has to be there, and has to be taken by the code that reads it. Checks as in pods.py."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ray.serve.schema import ServeDeploySchema

import carl
from carl.errors import CarlError
from carl.methods.code import CodeConfig
from carl.runs.grid import SweepConfig
from carl.runs.storage import Storage
from carl.serving.app import ServingConfig
from carl.tasks import get_task
from tests.k8s.manifests import REPOSITORY, Manifest, applications, cluster_of, containers, groups_of, named

Problems = Iterator[str]


def images(manifests: list[Manifest]) -> Problems:
    ours = f"registry.example/carl:{carl.__version__}"
    for container in containers(manifests):
        gpu = "nvidia.com/gpu" in container["resources"]["limits"]
        if container["name"] != "autoscaler" and container["image"] != (f"{ours}-cuda" if gpu else ours):
            yield f"{container['name']} runs {container['image']}"
    if cluster_of(manifests)["rayVersion"] != pinned_version("ray"):
        yield "the image has another Ray"


def pinned_version(package: str) -> str:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    return next(line.split("==")[1] for line in lines if line.startswith(f"{package}=="))


def entry_points(manifests: list[Manifest]) -> Problems:
    """The script is in the image, the configuration is mounted, and the script takes it."""
    for job in named(manifests, "RayJob").values():
        match shlex.split(job["spec"]["entrypoint"]):
            case ["python", script, config]:
                path = Path(script).relative_to("/opt/carl") if script.startswith("/opt/carl/") else Path(script)
            case ["python", "-m", module, config]:
                path = Path(f"{module.replace('.', '/')}.py")
            case other:
                yield f"{other} is no entry point"
                continue
        if not (REPOSITORY / path).is_file() or path.parts[0] not in ("jobs", "deployments"):
            yield f"there is no {path} in the image"
        mounted = dict(mounted_files(manifests))
        if config not in mounted:
            yield f"there is no {config} in the pod"
        else:
            yield from (f"{config}: {problem}" for problem in refused(path.name, yaml.safe_load(mounted[config])))


def mounted_files(manifests: list[Manifest]) -> Iterator[tuple[str, str]]:
    """Path and text of each file that a ConfigMap puts into the head's container."""
    head = groups_of(manifests)["head"]["template"]["spec"]
    sources = {volume["name"]: volume["configMap"]["name"] for volume in head["volumes"] if "configMap" in volume}
    for mount in head["containers"][0]["volumeMounts"]:
        if (source := sources.get(mount["name"])) in (maps := named(manifests, "ConfigMap")):
            yield from ((f"{mount['mountPath']}/{name}", text) for name, text in maps[source]["data"].items())


def refused(script: str, told: dict[str, Any]) -> Problems:
    """What ``script`` would have against the configuration."""
    try:
        if script == "sweep.py":
            sweep = SweepConfig.model_validate(told)
            runs, storage = [trial.config for trial in sweep.trials()], sweep.storage
        else:
            runs = [CodeConfig.model_validate(told)]
            storage = runs[0].storage
        for run in runs:
            get_task(run.task)
        Storage(storage or "")  # reads the URI; nothing is reached yet
    except (ValueError, CarlError) as error:
        yield str(error)


def demands(manifests: list[Manifest]) -> Problems:
    """What a run reserves is offered by a group of pods, at its largest."""
    offers = [offered(group) for role, group in groups_of(manifests).items() if role != "head"]
    for name, text in mounted_files(manifests):
        told = yaml.safe_load(text)
        told = told.get("base", told)
        train = told.get("train", {})
        wanted = [
            ("its VLM", 1, told.get("vlm", {}).get("resources", {})),
            ("its learners", train.get("learners", 0), {"GPU": train.get("gpus_per_learner", 0)}),
            ("its runners", train.get("env_runners", 0), {"CPU": train.get("cpus_per_runner", 1)}),
        ]
        for what, count, each in wanted:
            if not any(all(count * each[kind] <= offer.get(kind, 0) for kind in each) for offer in offers):
                yield f"{name}: no group has room for {what}"


def offered(group: Manifest) -> dict[str, float]:
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    each = {"CPU": float(limits["cpu"]), "GPU": float(limits.get("nvidia.com/gpu", 0)), **group.get("resources", {})}
    return {kind: group["maxReplicas"] * float(amount) for kind, amount in each.items()}


def serving(manifests: list[Manifest]) -> Problems:
    for service in named(manifests, "RayService").values():
        try:
            ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
        except ValueError as error:
            yield f"Serve refuses its configuration: {error}"
    for application in applications(manifests):
        module, _, name = application.get("import_path", "").partition(":")
        path = REPOSITORY / f"{module.replace('.', '/')}.py"
        if not path.is_file() or f'"{name}"' not in path.read_text():
            yield f"there is no {module}:{name}"
        try:
            ServingConfig.model_validate(application["args"])
        except ValueError as error:
            yield f"the VLM refuses its arguments: {error}"
        given = [
            source.get("secretRef", {}).get("name")
            for group in groups_of(manifests).values()
            for source in group["template"]["spec"]["containers"][0].get("envFrom", [])
        ]
        if given.count("carl-vlm") != len(groups_of(manifests)):
            yield "a pod that may build the application has not the VLM's token"
