"""Serving a model from this process: for the time of a synthesis, or until Ctrl-C."""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray

from carl.cluster.core import lost
from carl.cluster.resources import Need, room_for
from carl.cluster.session import ray_running
from carl.config import EMBEDDED_MODEL
from carl.errors import ConfigError, ResourceError, VlmError

logger = logging.getLogger(__name__)

APPLICATION = "vlm"
LOOPBACK = "127.0.0.1"
_NAMESPACE = "serve"
_CONTROLLER = "SERVE_CONTROLLER_ACTOR"


@contextlib.contextmanager
def serving(
    model: str = EMBEDDED_MODEL,
    *,
    host: str = LOOPBACK,
    port: int | None = None,
    token_env: str | None = None,
    **args: Any,
) -> Iterator[str]:
    """Serve ``model`` until the context ends; yields the base URL, ``http://host:port/v1``.

    The port is a free one unless given. ``args`` are further fields of ServingConfig. At its end it waits until
    replicas, proxy and controller have ended and their CPUs and GPUs are free. Ray is started if it does not run, and
    then stopped at the end. Raises VlmError if the model cannot be served, ConfigError if Serve already runs, and
    ResourceError if the cluster has no room for the model, also after waiting.
    """
    with ray_running():
        if _serve_actors():
            raise ConfigError("Ray Serve already runs on this cluster; set vlm.base_url to the model it serves")
        free = _available()
        port = port or _free_port()
        try:
            _start(model, host, port, {"token_env": token_env, **args})
            yield f"http://{host}:{port}/v1"
        finally:
            if not lost():
                _stop(free)


def serve_forever(
    model: str,
    host: str = LOOPBACK,
    port: int = 8000,
    token_env: str | None = None,
    on_ready: Callable[[str], None] = logger.info,
    **args: Any,
) -> None:
    """Serve, call ``on_ready`` with the base URL, and clean up on Ctrl-C or SIGTERM, as ``carl serve`` does.

    To be called in the main thread. Raises the errors of ``serving``.
    """
    with (
        contextlib.suppress(KeyboardInterrupt),
        serving(model, host=host, port=port, token_env=token_env, **args) as base_url,
    ):
        on_ready(base_url)
        while True:
            time.sleep(1.0)


def _start(model: str, host: str, port: int, args: dict[str, Any]) -> None:
    from ray import serve

    from carl.serving.app import QUIET, build
    from carl.serving.weights import locate

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    locate(model)
    if host not in (LOOPBACK, "localhost", "::1") and args.get("token_env") is None:
        logger.warning("serving on %s without a token: anyone who can connect to it can use the model", host)
    args.setdefault("num_gpus", _gpus(model))
    application = build({"model": model, **args})
    silent = {**QUIET, "log_level": "CRITICAL"}  # what fails is raised here; the controller need not print it too
    with room_for([_need(args)]):
        serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port}, logging_config=silent)
        try:
            serve.run(application, name=APPLICATION, route_prefix="/")
        except RuntimeError as error:
            raise VlmError(f"the model {model!r} could not be served: {_cause()}") from error


def _need(args: Mapping[str, Any]) -> Need:
    each = {"CPU": args.get("num_cpus", 1), "GPU": args["num_gpus"], **args.get("resources", {})}
    return Need("VLM server", args.get("replicas", 1), each, "vlm.resources")


def _cause() -> str:
    """The last VlmError in Serve's status, which holds the replica's traceback; else its last line."""
    from ray import serve

    deployments = serve.status().applications[APPLICATION].deployments.values()
    lines = [line.strip() for deployment in deployments for line in deployment.message.splitlines() if line.strip()]
    ours = [line.partition("VlmError: ")[2] for line in lines if "VlmError: " in line]
    return (ours or lines or ["no reason is given"])[-1]


def _gpus(model: str) -> float:
    """GPUs for ``model``: one if one is free, none for the embedded model, which is too small to gain from it."""
    return 0.0 if model == EMBEDDED_MODEL else min(1.0, _available().get("GPU", 0.0))


def _stop(free: dict[str, float], timeout_s: float = 60.0) -> None:
    """Take Serve down; wait until its processes ended and ``free`` CPUs and GPUs are free. Raises ResourceError."""
    from ray import serve

    processes = _local_processes()
    # serve.shutdown() waits in a task of the controller, which dies with it, and Ray prints that as a failure. So the
    # controller is shut down first, and serve.shutdown() then only drops the reference.
    with contextlib.suppress(ValueError, ray.exceptions.RayActorError):  # there is none, or it is dead
        controller = ray.get_actor(_CONTROLLER, namespace=_NAMESPACE)
        ray.get(controller.graceful_shutdown.remote(wait=False))
    deadline = time.monotonic() + timeout_s
    while _serve_actors() or not _released(free) or any(Path(f"/proc/{pid}").exists() for pid in processes):
        if time.monotonic() > deadline:
            raise ResourceError(
                f"Ray Serve is still there {timeout_s:g} s after it was shut down: actors {_serve_actors()}, "
                f"processes among {processes}; free now: {_available()}"
            )
        time.sleep(0.05)
    serve.shutdown()  # type: ignore[no-untyped-call]


def _released(free: dict[str, float]) -> bool:
    now = _available()
    return all(now.get(kind, 0.0) >= free.get(kind, 0.0) for kind in ("CPU", "GPU"))


def _available() -> dict[str, float]:
    return dict(ray.available_resources())  # type: ignore[no-untyped-call]


def _serve_actors() -> list[str]:
    actors = ray.util.list_named_actors(all_namespaces=True)
    return [str(actor["name"]) for actor in actors if actor["namespace"] == _NAMESPACE]


def _local_processes(timeout_s: float = 5.0) -> list[int]:
    """Process ids of Serve's actors on this node. An actor is gone from Ray's list before its process has ended."""
    answers: list[Any] = []
    for name in _serve_actors():
        with contextlib.suppress(ValueError):  # it went meanwhile
            answers.append(ray.get_actor(name, namespace=_NAMESPACE).__ray_call__.remote(_whereabouts))
    answered, _ = ray.wait(answers, num_returns=len(answers), timeout=timeout_s) if answers else ([], [])
    here = ray.get_runtime_context().get_node_id()
    found = []
    for answer in answered:
        with contextlib.suppress(ray.exceptions.RayActorError):  # it died meanwhile
            node, pid = ray.get(answer)
            found += [pid] if node == here else []
    return found


def _whereabouts(_: object) -> tuple[str, int]:
    return ray.get_runtime_context().get_node_id(), os.getpid()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
