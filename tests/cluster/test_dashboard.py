"""The Grafana dashboard asks for what there is, and Prometheus is shown where to read it."""

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import carl
from carl.cluster.metrics import METRICS

K8S = Path(carl.__file__).parents[1] / "k8s"
DASHBOARD = json.loads((K8S / "grafana" / "carl.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
LABELS = {metric.exported: {"run", *metric.labels} for metric in METRICS}
SERVER = {
    "ray_carl_vlm_requests_total": {"client", "status"},
    "ray_carl_vlm_prompt_tokens_total": {"client"},
    "ray_carl_vlm_completion_tokens_total": {"client"},
    "ray_carl_vlm_request_seconds_bucket": {"client", "le"},
    "ray_carl_vlm_batch_size_sum": set(),
    "ray_carl_vlm_batch_size_count": set(),
    "ray_carl_vlm_generation_seconds_total": set(),
}
"""The VLM server's, which belong to no run; tests/deployments/test_sharing.py reads them back."""


def named(expression: str) -> set[str]:
    """The metrics in an expression."""
    return set(re.findall(r"\bray_\w+", expression))


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    asked = {name for expression in EXPRESSIONS for name in named(expression)}
    assert {name for name in asked if name.startswith("ray_carl_")} == LABELS.keys() | SERVER.keys()
    serving = "".join(path.read_text() for path in Path(carl.__file__).parent.glob("serving/*.py"))
    for name in SERVER:
        assert f'"{re.sub("^ray_|_(total|bucket|sum|count)$", "", name)}"' in serving


def test_expressions_and_legends_use_labels_that_their_metrics_have() -> None:
    for target in (target for panel in PANELS for target in panel["targets"]):
        grouped: set[str] = set()
        for side in target["expr"].split(" / "):
            ours = [LABELS[name] for name in named(side) if name in LABELS]
            theirs = [SERVER[name] for name in named(side) if name in SERVER]
            by = {label for group in re.findall(r"\bby \(([^)]*)\)", side) for label in group.split(", ")}
            selected = set(re.findall(r'(\w+)=~?"', side))
            assert not ours + theirs or by | selected <= set.intersection(*ours, *theirs), side
            assert side.count('run=~"$run"') == len(ours), side
            grouped |= by
        shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert shown <= grouped, f"{target['legendFormat']} shows what {target['expr']} aggregates away"


def test_rays_own_metrics_are_known_to_this_ray() -> None:
    ray = importlib.util.find_spec("ray")
    assert ray is not None
    assert ray.origin is not None
    modules = Path(ray.origin).parent / "dashboard" / "modules"
    files = ("metrics/dashboards/default_dashboard_panels.py", "reporter/reporter_agent.py")
    known = "".join((modules / file).read_text() for file in files)
    for name in {name for expression in EXPRESSIONS for name in named(expression)} - LABELS.keys() - SERVER.keys():
        assert f'"{name.removeprefix("ray_")}"' in known or re.search(rf"\b{name}\b", known), name


def test_panels_have_their_own_places_and_ask_the_chosen_prometheus() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"${datasource}"}
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "run"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl to render with")
def test_an_overlay_that_is_monitored_has_the_dashboard_and_a_monitor_of_its_pods(tmp_path: Path) -> None:
    import kubernetes_validate

    def near(path: Path) -> str:
        return str(path.resolve().relative_to("/")).join(("../" * len(tmp_path.resolve().parts[1:]), ""))

    told = {"resources": [near(K8S / "overlays/cpu")], "components": [near(K8S / "components/monitoring")]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(told))
    run = subprocess.run(["kubectl", "kustomize", tmp_path], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    manifests: dict[tuple[str, str], Any] = {
        (manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in yaml.safe_load_all(run.stdout)
    }
    dashboard = manifests["ConfigMap", "carl-dashboard"]
    kubernetes_validate.validate(dashboard, "1.33", strict=True)
    assert json.loads(dashboard["data"]["carl.json"]) == DASHBOARD
    monitor = manifests["PodMonitor", "carl"]["spec"]
    (expression,) = monitor["selector"]["matchExpressions"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    cluster = manifests["RayJob", "carl"]["spec"]["rayClusterSpec"]
    watched = manifests["NetworkPolicy", "carl-watched"]["spec"]
    assert watched["podSelector"] == monitor["selector"]
    opened = {port["port"] for rule in watched["ingress"] for port in rule["ports"]}
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        assert expression["key"] in group["template"]["metadata"]["labels"]
        ports = {port["name"]: port["containerPort"] for port in group["template"]["spec"]["containers"][0]["ports"]}
        assert ports[endpoint["port"]] == int(group["rayStartParams"]["metrics-export-port"])
        assert ports[endpoint["port"]] in opened
