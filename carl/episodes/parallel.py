"""Work of one kind in pieces, by Ray tasks where Ray runs and in this process elsewhere."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from carl.cluster.core import clearly, lost
from carl.console.progress import Progress
from carl.errors import CarlError

PARTS_PER_CPU = 4
"""Pieces of work for each CPU: several, so that long episodes even out and progress shows."""


Died = Callable[..., CarlError | None]
"""From the arguments of a piece of work to the error to raise where its process ended; None: Ray's own."""


def split(seeds: Sequence[int]) -> list[list[int]]:
    """Consecutive pieces of ``seeds`` of nearly equal size, PARTS_PER_CPU for each CPU."""
    count = min(len(seeds), max(1, int(_cpus_here())) * PARTS_PER_CPU)
    return [piece.tolist() for piece in np.array_split(np.asarray(seeds, dtype=np.int64), count)]


def _cpus_here() -> float:
    """CPUs of the Ray node that this process is on; none where Ray is not initialised."""
    import ray

    if not ray.is_initialized():
        return 0.0
    own = ray.get_runtime_context().get_node_id()
    nodes: Any = ray.nodes()  # type: ignore[no-untyped-call]
    return float(next(node["Resources"].get("CPU", 0.0) for node in nodes if node["NodeID"] == own))


def in_parallel(
    function: Any,
    work: Sequence[tuple[Any, ...]],
    sizes: Sequence[int],
    label: str,
    progress: Progress,
    died: Died = lambda *_: None,
) -> list[Any]:
    """``[function(*arguments) for arguments in work]``, by Ray tasks on this node where Ray is initialised.

    Args:
        sizes: how much ``progress`` counts each piece of work for, under ``label``.
        died: gives the error for a piece of work whose process ended.

    The first CarlError is raised as it was.
    """
    import ray

    if ray.is_initialized():
        return _by_ray(function, work, sizes, label, progress, died)
    found, done, total = [], 0, sum(sizes)
    for arguments, size in zip(work, sizes, strict=True):
        found.append(function(*arguments))
        progress(label, done := done + size, total)
    return found


def _by_ray(
    function: Any, work: Sequence[tuple[Any, ...]], sizes: Sequence[int], label: str, progress: Progress, died: Died
) -> list[Any]:
    import ray

    from carl.cluster.session import here

    # Where the files are: other nodes of a cluster need not see them.
    remote = ray.remote(function).options(num_cpus=min(1, _cpus_here()), max_retries=1, scheduling_strategy=here())
    waiting = {remote.remote(*arguments): index for index, arguments in enumerate(work)}
    found: dict[int, Any] = {}
    done, total = 0, sum(sizes)
    try:
        with clearly():
            while waiting:
                (ready,), _ = ray.wait(list(waiting))
                index = waiting.pop(ready)
                try:
                    found[index] = ray.get(ready)
                except ray.exceptions.WorkerCrashedError as error:
                    raise died(*work[index]) or error from None
                progress(label, done := done + sizes[index], total)
    finally:
        for reference in () if lost() else waiting:
            ray.cancel(reference)
    return [found[index] for index in range(len(work))]
