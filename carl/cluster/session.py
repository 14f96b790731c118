"""Ray for a command: the cluster it belongs to, or one of its own."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from carl.cluster.core import watched
from carl.console.progress import Progress, silent, working
from carl.errors import ResourceError

_log = logging.getLogger(__name__)


@contextmanager
def ray_running(progress: Progress = silent) -> Iterator[None]:
    """A connection to Ray: the one that exists, else to the cluster of RAY_ADDRESS (as in a Ray job), else a Ray of its
    own on this machine.

    Until the context ends SIGTERM raises KeyboardInterrupt, as Ctrl-C does; so does the loss of Ray's core, if the
    connection was made here (see ``carl.cluster.core``). Raises ResourceError if Ray does not start at the second try.
    """
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)  # importing ray set a lower level
    ours = not ray.is_initialized()
    try:
        if ours:
            with working(progress, "starting Ray"):
                _start()
        with _terminated_like_interrupted(), watched() if ours else nullcontext():
            yield
    finally:
        if ours:
            ray.shutdown()


def here() -> Any:
    """Ray's scheduling strategy for this process's node, where its files are."""
    import ray

    return on(ray.get_runtime_context().get_node_id())


def on(node: str) -> Any:
    """Ray's scheduling strategy for the node with the id ``node``, and no other."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def grows() -> bool:
    """Whether an autoscaler may add nodes, as under KubeRay. Which ones it could add is not known before it has."""
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    return bool(is_autoscaler_v2())


def alone() -> bool:
    """Whether this process started the Ray that it uses, so that no other run starts processes there."""
    from ray._private import worker

    node: Any = worker._global_node
    return node is not None and bool(node.is_head())


def _start() -> None:
    import ray

    address = os.environ.get("RAY_ADDRESS")
    more: dict[str, Any] = {"address": address} if address else {"address": "local", "include_dashboard": False}
    for last in (False, True):
        try:
            with _hushed():
                ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **more)
            return
        except Exception as error:  # Ray raises bare ones if its processes do not start in time
            with suppress(Exception):  # of what started by half
                ray.shutdown()
            if last or isinstance(error, ValueError):  # which is a malformed address
                where = f"the cluster at RAY_ADDRESS={address} cannot be used" if address else "Ray does not start here"
                raise ResourceError(f"{where}: {error}") from error
            _log.warning("Ray did not start and is started again: %s", error)


@contextmanager
def _hushed() -> Iterator[None]:
    """Discard what Ray's C++ parts write to standard error, as they use no logger; failures are raised all the same."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)
