"""A run or a sweep as a Ray job: carl goes along as a wheel; the job is followed, and what it makes is fetched."""

import asyncio
import base64
import hashlib
import json
import logging
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import distribution
from pathlib import Path
from platform import python_version
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener
from zipfile import ZIP_DEFLATED, ZipFile

import aiohttp
import yaml

import carl
from carl.cluster.logs import LOG, structured
from carl.cluster.network import is_loopback
from carl.config import RunConfig
from carl.console.progress import LINES, MARK, Progress
from carl.errors import ConfigError, ResourceError
from carl.runs.grid import SweepConfig
from carl.runs.holding import held
from carl.runs.storage import Storage

DISTRIBUTION = "code-as-reward"
CONFIG_FILE = "job.yaml"
CHATTY = (
    *("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"),
    "ray._private.runtime_env.packaging",
)
"""Loggers that set their own level when they are imported."""

ANSWER_S = 10.0
"""How long a cluster may take for its first answer."""

LOST_S = 60.0
"""How long a cluster that is followed may be gone: a dashboard that starts again, a connection that is made anew."""

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")

Out = Callable[[str], None]


def send(work: RunConfig | SweepConfig, address: str) -> tuple[Any, str]:
    """Submit a run or sweep to the cluster at ``address``, the URL of its dashboard; returns a client and the job's id.

    The job has this carl, whatever the cluster has installed, and the module of a task of one's own from the working
    directory; packages that these import have to be there. Raises ConfigError and ResourceError.
    """
    client = connect(address)
    command, directory, tasks = _asked(work)
    storage = storage_for(work.storage, directory, address)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = pack(folder)
        for task in tasks:
            _take_along(task, folder)
        settings = work.model_dump(mode="json", exclude={"run_dir", "directory"}, exclude_unset=True)
        (folder / CONFIG_FILE).write_text(yaml.safe_dump(settings | {"storage": storage}, sort_keys=False))
        environment = {
            "working_dir": name,
            "pip": {
                "packages": [f"${{RAY_RUNTIME_ENV_CREATE_WORKING_DIR}}/{wheel.name}"],
                # It has to win over one that the image has, and what it needs is the cluster's business.
                "pip_install_options": ["--no-deps", "--no-index", "--force-reinstall", "--disable-pip-version-check"],
            },
            "env_vars": {LINES: "1", LOG: "json" if structured() else ""},
        }
        with clearly(address):
            return client, client.submit_job(
                entrypoint=f"python -m carl {command}",
                runtime_env=environment,
                metadata={"run_dir": str(directory), "storage": storage},
            )


def _asked(work: RunConfig | SweepConfig) -> tuple[str, Path, set[str]]:
    """The command of the job, the directory on this machine that its files go to, and the tasks that it runs."""
    if isinstance(work, SweepConfig):
        return f"sweep {CONFIG_FILE}", work.path.absolute(), {trial.config.task for trial in work.trials()}
    return f"run {shlex.quote(work.task)} --config {CONFIG_FILE}", work.directory.absolute(), {work.task}


def storage_for(storage: str | None, directory: Path, address: str) -> str:
    """Through which what a job makes comes back to ``directory``; on this machine the directory itself will do."""
    own = directory.as_uri()
    if storage and storage != own:
        return storage
    if not is_loopback(address):
        raise ConfigError(
            "a job's files stay on the cluster unless they have somewhere to go: --set storage=URI, of pyarrow.fs, "
            "that the cluster and this machine reach"
        )
    return own


def fetch(client: Any, job: str) -> Path | None:
    """Copy what the job has made so far to its directory on this machine; None if it made nothing."""
    metadata = client.get_job_info(job).metadata or {}
    if "storage" not in metadata:
        return None
    directory, storage = Path(metadata["run_dir"]), Storage(metadata["storage"])
    if metadata["storage"] != directory.as_uri():
        with held(directory):
            storage.fetch(directory)
    return directory if any(directory.glob("*")) else None


def connect(address: str) -> Any:
    """Ray's client; raises ResourceError where no cluster of our Ray and Python answers, or the token is wrong."""
    _show_token()
    from ray.job_submission import JobSubmissionClient

    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)

    if urlsplit(address).scheme not in ("http", "https"):
        raise ConfigError(f"--address {address} is not a URL; give that of the cluster's dashboard, http://HOST:8265")

    class Client(JobSubmissionClient):
        """Ray's, which asks this machine's own cluster through no proxy."""

        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            return super()._do_request(method, endpoint, **options, proxies=proxies)

    proxies = dict.fromkeys(("http", "https", "all")) if is_loopback(address) else None
    opener = build_opener(*([ProxyHandler({})] if is_loopback(address) else []))
    with clearly(address):
        with suppress(HTTPError), opener.open(f"{address.rstrip('/')}/api/version", timeout=ANSWER_S):
            pass  # Ray's client would wait without end; the client refuses a wrong token itself
        client = Client(address)
        check_versions(client._do_request("GET", "/api/v0/cluster_metadata").json()["data"], address)
    return client


def check_versions(theirs: dict[str, str], address: str) -> None:
    """Raise ResourceError unless Ray and Python there are ours: policies and weights travel as pickles."""
    import ray

    for name, key, ours in (("Ray", "rayVersion", ray.__version__), ("Python", "pythonVersion", python_version())):
        if theirs[key].split(".")[:2] != ours.split(".")[:2]:
            raise ResourceError(
                f"the cluster at {address} runs {name} {theirs[key]}, and this is {name} {ours}: install the same"
            )


def _show_token() -> None:
    """Have Ray send the token it finds, as its own commands do; it looks at this variable when it is imported."""
    places = [os.environ.get("RAY_AUTH_TOKEN"), os.environ.get("RAY_AUTH_TOKEN_PATH")]
    if any(places) or (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


@contextmanager
def clearly(address: str) -> Iterator[None]:
    """Turn what Ray's client of jobs raises into ResourceError."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise ResourceError(
            f"the cluster at {address} wants another token: set RAY_AUTH_TOKEN, or put it into ~/.ray/auth_token"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise ResourceError(f"the cluster at {address} cannot be used: {error}") from error


def pack(folder: Path) -> Path:
    """carl as it runs here, as a wheel in ``folder``: entry points and isolated interpreters work where it goes.

    Its build tag is the hash of its content: a cluster that has installed a wheel installs no other of that name.
    """
    info = f"{DISTRIBUTION.replace('-', '_')}-{carl.__version__}.dist-info"
    contents = dict(_contents(info))
    record = "".join(f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in contents.items())
    build = "0" + hashlib.sha256(record.encode()).hexdigest()[:12]  # it has to begin with a digit
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = folder / f"{info.removesuffix('.dist-info')}-{build}-py3-none-any.whl"
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _contents(info: str) -> Iterator[tuple[str, bytes]]:
    root = Path(carl.__file__).parent
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield f"carl/{path.relative_to(root).as_posix()}", path.read_bytes()
    installed = distribution(DISTRIBUTION)
    for name in ("METADATA", "entry_points.txt"):
        yield f"{info}/{name}", (installed.read_text(name) or "").encode()
    yield f"{info}/WHEEL", b"Wheel-Version: 1.0\nGenerator: carl\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def _take_along(task: str, folder: Path) -> None:
    """Copy the module or package of a task that is named module:attribute, if it lies in the working directory."""
    module, colon, _ = task.partition(":")
    top = Path(module.partition(".")[0])
    if colon and top.is_dir():
        shutil.copytree(top, folder / top, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    elif colon and top.with_suffix(".py").is_file():
        shutil.copy(top.with_suffix(".py"), folder)


def watch(client: Any, job: str, progress: Progress, out: Out) -> int:
    """Show what the job prints, and its progress, until it ends; returns its exit code."""
    shown = 0
    answered = time.monotonic()
    while True:
        try:
            shown = asyncio.run(_tail(client, job, shown, progress, out))
            info = client.get_job_info(job)
            answered = time.monotonic()
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            if time.monotonic() - answered > LOST_S:
                raise ResourceError(
                    f"the cluster answers no more ({error}). The job may go on: `carl submit --follow {job}`"
                ) from error
        else:
            if info.status in ENDED:
                break
        time.sleep(1.0)  # the connection broke, not the job
    if info.status != "SUCCEEDED" and info.message:
        out(info.message)
    code = info.driver_exit_code
    return int(code) if code is not None else int(info.status != "SUCCEEDED")


async def _tail(client: Any, job: str, shown: int, progress: Progress, out: Out) -> int:
    """Show the lines after the first ``shown``; returns how many there were in all when the connection ended."""
    rest, count = "", 0
    try:
        async for text in client.tail_job_logs(job):
            *lines, rest = (rest + text).split("\n")
            for line in lines:
                count += 1
                if count > shown:
                    _show(line, progress, out)
    except RuntimeError:
        return max(count, shown)  # the follower begins again
    if rest and count >= shown:
        _show(rest, progress, out)
    return max(count, shown)


def _show(line: str, progress: Progress, out: Out) -> None:
    if not line.startswith(MARK):
        out(line)
        return
    try:
        one = json.loads(line.removeprefix(MARK))
        progress(one["label"], one["done"], one["total"])
    except (ValueError, KeyError, TypeError):  # something else that begins so
        out(line)
