"""The image is pinned and unprivileged, and its build context holds what it copies."""

import re
from fnmatch import fnmatch

import pytest

from tests.k8s.manifests import REPOSITORY

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
IGNORED = (REPOSITORY / ".dockerignore").read_text().split()


def copied(dockerfile: str) -> list[str]:
    """What is copied from the build context."""
    lines = [line.split()[1:-1] for line in dockerfile.splitlines() if line.startswith("COPY ")]
    return [name for names in lines if not names[0].startswith("--from") for name in names]


def sent(path: str, rules: list[str]) -> bool:
    """Whether a path is in the build context: the last rule that speaks of it, or of a folder above it, decides."""
    parents = ["/".join(path.split("/")[: depth + 1]) for depth in range(path.count("/") + 1)]
    kept = True
    for rule in rules:
        pattern = rule.removeprefix("!").removeprefix("**/")
        names = [
            name for parent in parents for name in ({parent, parent.split("/")[-1]} if "**/" in rule else {parent})
        ]
        if any(fnmatch(name, pattern) for name in names):
            kept = rule.startswith("!")
    return kept


@pytest.mark.parametrize("name", copied(DOCKERFILE))
def test_what_is_copied_is_there_and_sent(name: str) -> None:
    there = REPOSITORY / name
    assert there.exists()
    files = [path.relative_to(REPOSITORY) for path in there.rglob("*") if path.is_file()] if there.is_dir() else [name]
    kept = [path for path in map(str, files) if sent(path, IGNORED)]
    assert kept
    assert sorted(kept) == sorted(str(path) for path in files if "__pycache__" not in str(path))


def test_nothing_else_is_sent() -> None:
    assert IGNORED[0] == "*", "what is not named stays out"
    assert {rule.removeprefix("!") for rule in IGNORED if rule.startswith("!")} == set(copied(DOCKERFILE))
    for path in (
        ".git/config",
        ".env",
        "runs/demo/run.json",
        "carl/__pycache__/cli.cpython-311.pyc",
        "k8s/base/rayjob.yaml",
    ):
        assert not sent(path, IGNORED), path


def test_what_the_manifests_run_is_in_the_image() -> None:
    for folder in ("jobs", "deployments"):
        assert f"COPY {folder} /opt/carl/{folder}" in DOCKERFILE
    assert "PYTHONPATH=/opt/carl" in DOCKERFILE
    assert "import pyseccomp" in DOCKERFILE, "an image without libseccomp has no box"


def test_the_image_is_pinned_and_unprivileged() -> None:
    assert re.search(r"^ARG BASE=python:3\.11\.\d+-slim-\w+$", DOCKERFILE, re.MULTILINE)
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${BASE}"] * 2
    assert "-c constraints.txt" in DOCKERFILE
    assert "torch==" in (REPOSITORY / "constraints.txt").read_text()
    assert re.search(r"^USER 1000$", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^ARG TORCH_INDEX=", DOCKERFILE, re.MULTILINE), "CPU or CUDA"
