"""Reading back what Ray exports for Prometheus."""

import re
import time
import urllib.request

import ray

LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


def metrics(**tags: str) -> dict[str, float]:
    """Every metric of this node by name, those that differ only in tags added up; ``tags`` select."""
    node = ray.nodes()[0]
    with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics") as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for name, labels, value in LINE.findall(text):
        if all(f'{key}="{wanted}"' in labels for key, wanted in tags.items()):
            found[name] = found.get(name, 0.0) + float(value)
    return found


def reported(name: str, value: float, timeout_s: float = 30.0, **tags: str) -> dict[str, float]:
    """The metrics as soon as ``name`` has come to ``value``: workers report every few seconds."""
    deadline = time.monotonic() + timeout_s
    while (found := metrics(**tags)).get(name, 0.0) < value and time.monotonic() < deadline:
        time.sleep(0.25)
    return found


def replica(deployment: str) -> str:
    """The tag of the one replica of a deployment."""
    names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    [name] = [name for name in names if f"#{deployment}#" in name]
    return str(name).rpartition("#")[2]
