"""What is sent to a cluster, and what is made of what it answers; and once the whole of it, with a real cluster."""

import json
import os
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import psutil
import pytest
import yaml
from typer.testing import CliRunner

import carl
from carl.cli import app, bars, settings, sweep_of, work_of
from carl.cluster.network import is_loopback
from carl.console.progress import LINES, MARK
from carl.errors import ConfigError, ResourceError
from carl.methods.code import CodeConfig
from carl.runs import submit
from carl.runs.grid import SweepConfig
from carl.runs.storage import Storage
from tests.runs.test_storage import run

JOBS = Path(__file__).parents[2] / "jobs"


@pytest.fixture(autouse=True)
def _own_ray_token(monkeypatch):
    """What connecting sets for Ray must not reach the Ray of other tests."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """A Python that has all that this one has but carl, and is small: Ray copies it for every job."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "all.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin/python"


@pytest.fixture(scope="module")
def cluster(bare) -> Iterator[str]:
    """The URL of a cluster by `ray start --head`, whose token is "right"."""
    with ExitStack() as stack:
        free = (stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(5))
        gcs, dashboard, *others = (server.getsockname()[1] for server in free)
    names = ("ray-client-server-port", "dashboard-agent-listen-port", "metrics-export-port")
    ports = [f"--{name}={port}" for name, port in zip(names, others, strict=True)]
    ports += [f"--port={gcs}", f"--dashboard-port={dashboard}", "--min-worker-port=0", "--max-worker-port=0"]
    # Without PYTHONPATH: the job has the carl that is sent.
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "RAY_ADDRESS")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "right"}
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # sockets want a short path
        start = [bare, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        command = [*start, "--num-cpus=2", f"--temp-dir={folder}", "--node-ip-address=127.0.0.1", *ports]
        head = psutil.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert any("Ray runtime started" in line for line in head.stdout)
            yield f"http://127.0.0.1:{dashboard}"
        finally:
            for process in [head, *head.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            head.wait(timeout=30)


def submitted(config: Path, cluster: str, token: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "carl", "submit", config.name, "--address", cluster]
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    return subprocess.run(command, cwd=config.parent, env=environment, capture_output=True, text=True, timeout=240)


def test_a_cluster_runs_it_and_what_it_made_comes_back(tmp_path, cluster):
    config = tmp_path / "tiny.yaml"
    tree = {
        "task": "Empty-8x8",
        "reward": {"source": "sparse"},
        "train": {"env_runners": 1, "envs_per_runner": 8, "env_steps": 1000},
        "evaluation": {"episodes": 2, "curve_episodes": 2},
    }
    config.write_text(yaml.safe_dump(tree))
    command = submitted(config, cluster, "right")
    assert command.returncode == 0, command.stdout + command.stderr
    assert "2 evaluation episodes" in command.stdout
    result = json.loads((tmp_path / "runs/Empty-8x8-0/result.json").read_text())
    assert result["env_steps"] >= 1000
    refused = submitted(config, cluster, "wrong")
    assert refused.returncode == 1
    assert "wants another token" in refused.stderr


def installed(folder) -> str:
    """carl from the wheel alone, as an isolated interpreter finds it."""
    wheel = submit.pack(folder)
    target = folder / "site"
    options = ["--no-deps", "--no-compile", "--no-index", "--quiet", "--disable-pip-version-check", "--target", target]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, wheel], check=True, timeout=120)
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r}); import carl; from importlib.metadata import entry_points; "
        "print(carl.__file__, carl.__version__, [e.value for e in entry_points(name='carl')][:1])"
    )
    return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_wheel_installs_without_anything_else_and_has_its_entry_points(tmp_path):
    assert installed(tmp_path).split() == [
        str(tmp_path / "site" / "carl" / "__init__.py"),
        carl.__version__,
        "['carl.cli:main']",
    ]
    assert (tmp_path / "site" / "carl" / "nano" / "weights" / "model.safetensors").exists()


def test_another_carl_is_another_wheel_and_the_same_is_the_same(tmp_path, monkeypatch):
    """A cluster that has installed a wheel of that name does not install another."""
    first, again = (submit.pack(tmp_path).name for _ in range(2))
    contents = submit._contents
    monkeypatch.setattr(submit, "_contents", lambda info: [*contents(info), ("carl/new.py", b"")])
    assert first == again != submit.pack(tmp_path).name


class Cluster:
    """A client of a cluster that prints ``chunks``; each list is one connection."""

    def __init__(self, *connections: list[str], status: str = "SUCCEEDED", code: int | None = 0, **more) -> None:
        self.connections = list(connections)
        self.info = SimpleNamespace(status=status, driver_exit_code=code, message="so it ended", metadata=more)

    async def tail_job_logs(self, job):
        for chunk in self.connections.pop(0):
            if chunk == "BREAK":
                raise RuntimeError("the connection broke")
            yield chunk

    def get_job_info(self, job):
        return SimpleNamespace(status="RUNNING") if self.connections else self.info


def watched(cluster: Cluster) -> tuple[int, list, list[str]]:
    told, said = [], []
    code = submit.watch(cluster, "job", lambda *progress: told.append(progress), said.append)
    return code, told, said


def test_progress_is_drawn_and_everything_else_is_shown():
    line = MARK + json.dumps({"label": "training", "done": 1, "total": 2})
    found = watched(Cluster(["hello\n@ca", line.removeprefix("@ca") + "\nbye"]))
    assert found == (0, [("training", 1, 2)], ["hello", "bye"])


def test_a_connection_that_breaks_is_taken_up_where_it_was(monkeypatch):
    monkeypatch.setattr(submit.time, "sleep", lambda _: None)
    assert watched(Cluster(["a\nb\n", "BREAK"], ["a\nb\nc\n"])) == (0, [], ["a", "b", "c"])


@pytest.mark.parametrize(("status", "code", "expected"), [("FAILED", 3, 3), ("FAILED", None, 1), ("STOPPED", None, 1)])
def test_the_job_s_exit_code_is_the_command_s(status, code, expected):
    assert watched(Cluster([], status=status, code=code)) == (expected, [], ["so it ended"])


def test_what_the_run_made_is_fetched_from_its_storage(tmp_path):
    made = run(tmp_path / "made", **{"result.json": "{}"})
    there = (tmp_path / "there").as_uri()
    Storage(there).push(made)
    here = tmp_path / "here"
    assert submit.fetch(Cluster(run_dir=str(here), storage=there), "job") == here
    assert (here / "result.json").exists()
    assert submit.fetch(Cluster(run_dir=str(tmp_path / "no"), storage=(tmp_path / "nothing").as_uri()), "job") is None


def test_a_cluster_elsewhere_needs_storage_and_this_machine_does_not(tmp_path):
    with pytest.raises(ConfigError, match="storage=URI"):
        submit.storage_for(None, tmp_path, "http://cluster:8265")
    assert submit.storage_for(None, tmp_path, "http://127.0.0.1:8265") == tmp_path.as_uri()
    assert submit.storage_for("s3://bucket/run", tmp_path, "http://127.0.0.1:8265") == "s3://bucket/run"


def sent(tmp_path, monkeypatch, path, *sets: str) -> tuple[dict, dict]:
    """What the cluster is told, and the configuration that comes with it."""
    told: dict = {}

    class Taker:
        def submit_job(self, runtime_env, **job):
            told.update(job, config=yaml.safe_load((Path(runtime_env["working_dir"]) / "job.yaml").read_text()))
            return "job"

    monkeypatch.setattr(submit, "connect", lambda address: Taker())
    monkeypatch.setattr(submit, "pack", lambda folder: folder / "wheel")
    monkeypatch.chdir(tmp_path)
    submit.send(work_of(path, list(sets)), "http://127.0.0.1:8265")
    return told, told.pop("config")


def test_a_run_and_a_sweep_are_told_from_each_other_and_mean_there_what_they_do_here(tmp_path, monkeypatch):
    job, config = sent(tmp_path, monkeypatch, JOBS / "doorkey.yaml", "seed=2")
    there = (tmp_path / "runs/DoorKey-8x8-2").as_uri()
    assert job["entrypoint"] == "python -m carl run DoorKey-8x8 --config job.yaml"
    assert CodeConfig.model_validate(config) == settings(
        "DoorKey-8x8", 2, None, JOBS / "doorkey.yaml", [f"storage={there}"]
    )

    job, config = sent(tmp_path, monkeypatch, JOBS / "sweep.yaml", "max_concurrent=2", "base.train.env_steps=5")
    assert job["entrypoint"] == "python -m carl sweep job.yaml"
    assert job["metadata"] == {"run_dir": str(tmp_path / "runs/sweep"), "storage": (tmp_path / "runs/sweep").as_uri()}
    sweep = SweepConfig.model_validate(config)
    assert (sweep.max_concurrent, sweep.base.train.env_steps, sweep.storage) == (2, 5, job["metadata"]["storage"])
    assert [trial.setting for trial in sweep.trials()] == [
        t.setting for t in sweep_of(JOBS / "sweep.yaml", []).trials()
    ]
    (tmp_path / "neither.yaml").write_text("grid: {}")
    with pytest.raises(ConfigError, match="neither a run, which names its task, nor a sweep"):
        work_of(tmp_path / "neither.yaml", [])


def test_a_sweep_s_folder_is_fetched_with_its_comparison(tmp_path):
    made = run(tmp_path / "made" / "a-seed-0", **{"result.json": "{}"})
    there = (tmp_path / "there").as_uri()
    Storage(f"{there}/a-seed-0").push(made)
    (tmp_path / "comparison").mkdir()
    (tmp_path / "comparison" / "sweep.html").write_text("a page")
    Storage(f"{there}/comparison").push(tmp_path / "comparison")
    here = tmp_path / "here"
    for _ in range(2):
        assert submit.fetch(Cluster(run_dir=str(here), storage=there), "job") == here
    assert (here / "comparison/sweep.html").exists()
    assert (here / "a-seed-0/result.json").exists()


def test_a_task_of_one_s_own_travels_along(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "tasks.py").write_text("TASK = 1")
    (tmp_path / "alone.py").write_text("TASK = 1")
    for task in ("mine.tasks:TASK", "alone:TASK", "DoorKey-5x5"):
        (tmp_path / "sent").mkdir(exist_ok=True)
        submit._take_along(task, tmp_path / "sent")
    assert sorted(path.name for path in (tmp_path / "sent").rglob("*.py")) == ["alone.py", "tasks.py"]


def test_where_no_cluster_is_the_error_says_so():
    with pytest.raises(ResourceError, match=r"http://127\.0\.0\.1:9 cannot be used"):
        submit.connect("http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="not a URL"):
        submit.connect("127.0.0.1:8265")
    assert isinstance(CliRunner().invoke(app, ["submit"]).exception, ConfigError)


def test_a_cluster_that_is_gone_for_a_while_is_followed_on_and_one_that_stays_away_is_named(monkeypatch):
    cluster = Cluster(["one\n"], [])
    told = cluster.get_job_info
    answers = iter([ConnectionError("refused")])

    def sometimes(job):
        for error in answers:
            raise error
        return told(job)

    monkeypatch.setattr(cluster, "get_job_info", sometimes)
    monkeypatch.setattr(submit.time, "sleep", lambda seconds: None)
    assert submit.watch(cluster, "job", lambda *told: None, lambda line: None) == 0
    monkeypatch.setattr(submit, "LOST_S", 0.0)
    answers = iter([ConnectionError("refused")])
    cluster.connections += [[]]
    with pytest.raises(ResourceError, match=r"answers no more.*--follow job"):
        submit.watch(cluster, "job", lambda *told: None, lambda line: None)


def test_a_line_that_only_begins_like_progress_is_shown():
    lines = []
    submit._show(MARK + "is no JSON", lambda *told: None, lines.append)
    assert lines == [MARK + "is no JSON"]


def test_a_server_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(submit, "ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ResourceError, match=f"the cluster at {address} cannot be used: .*timed out"):
            submit.connect(address)


def test_a_key_in_the_storage_s_uri_is_refused():
    with pytest.raises(ValueError, match="give its key by environment variables"):
        CodeConfig(task="DoorKey-8x8", storage="s3://KEY:SECRET@bucket/run")


@pytest.mark.parametrize(("name", "key"), [("Ray", "rayVersion"), ("Python", "pythonVersion")])
def test_a_cluster_of_other_versions_is_refused(name, key):
    import platform

    import ray

    same = {"rayVersion": ray.__version__, "pythonVersion": platform.python_version()}
    submit.check_versions(same, "http://head:8265")
    with pytest.raises(ResourceError, match=rf"runs {name} 1\.2\.3, and this is {name} \d.*install the same"):
        submit.check_versions(same | {key: "1.2.3"}, "http://head:8265")


def test_progress_as_lines(capsys, monkeypatch):
    monkeypatch.setenv(LINES, "1")
    with bars() as lines:
        for done in range(5):
            lines("training", done, 4)
    shown = [json.loads(line.removeprefix(MARK)) for line in capsys.readouterr().out.splitlines()]
    assert [(line["done"], line["total"]) for line in shown] == [(0, 4), (4, 4)]


def test_a_cluster_on_this_machine_is_reached_past_a_proxy(monkeypatch):
    import platform

    import ray

    version = {"version": "4", "ray_version": ray.__version__, "ray_commit": "x", "session_name": "s"}
    metadata = {"data": {"rayVersion": ray.__version__, "pythonVersion": platform.python_version()}}
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = json.dumps(version if self.path == "/api/version" else metadata).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            """Say nothing."""

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        submit.connect(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert {"/api/version", "/api/v0/cluster_metadata"} == set(asked)


@pytest.mark.parametrize(
    ("host", "here"),
    [
        *[(host, True) for host in ("localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.1.2.3", "[::1]")],
        *[(host, False) for host in ("10.0.0.1", "head", "localhost.example.org", "127.0.0.1.example.org", "[::2]")],
        ("[::ffff:127.0.0.1]", True),
    ],
)
def test_what_is_this_machine(host, here):
    assert is_loopback(f"http://{host}:8265/x") == here
