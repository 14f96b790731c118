"""Whatever records and reads episodes holds those in work, however many there are."""

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from carl.config import VerifyConfig
from carl.episodes.collect import collect
from carl.episodes.trajectory import TrajectoryStore
from carl.program import RewardProgram, SubTask
from carl.task import Task
from carl.verification import Evidence, verify
from tests.fakes.corridor import Corridor

LENGTH, SIDE = 30, 48
FRAME = SIDE * SIDE * 3
CHUNK = 4 * FRAME
SOURCE = "def progress(frame, initial):\n    return min(1.0, frame[0, 0, 0] / 30)\n"
PROGRAM = RewardProgram(subtasks=(SubTask(name="walk", code=SOURCE),))


class Noisy(Corridor):
    """Frames that cannot be compressed, but for the pixel that tells the position."""

    def __init__(self) -> None:
        super().__init__(LENGTH, 2 * LENGTH)

    def render(self) -> np.ndarray:
        frame = np.random.default_rng(self.steps).integers(256, size=(SIDE, SIDE, 3), dtype=np.uint8)
        frame[0, 0] = self.position
        return frame


POOLS: list[pa.MemoryPool] = []
"""All that there were: buffers that outlive their pool are no memory any more."""

TASK = Task(name="noisy", description="x", make=Noisy, expert=lambda env: lambda observation: 1)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Four frames to a chunk, two episodes side by side, and memory that is watched."""
    monkeypatch.setattr("carl.verification.gate.AT_ONCE", 2)
    monkeypatch.setattr("carl.episodes.frames.CHUNK_BYTES", CHUNK)
    monkeypatch.setattr("carl.verification.asking.BYTES_AT_ONCE", CHUNK)
    monkeypatch.setattr("carl.episodes.parallel.PARTS_PER_CPU", 1)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    tracemalloc.start()
    yield
    tracemalloc.stop()


def peak(work: Callable[[], object]) -> int:
    """Bytes of Python and of Arrow that ``work`` adds at its fullest."""
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    POOLS.append(pool)
    pa.set_memory_pool(pool)
    try:
        tracemalloc.reset_peak()
        held = tracemalloc.get_traced_memory()[0]
        work()
        return tracemalloc.get_traced_memory()[1] - held + pool.max_memory()
    finally:
        pa.set_memory_pool(before)


def peaks(episodes: int, place: Path) -> dict[str, int]:
    """Of each pass over so many episodes."""
    lenient = VerifyConfig(max_random_completion=1.0, min_randoms=1)
    recorded = peak(lambda: collect(TASK, range(episodes), "expert", str(place / "a")))
    store = TrajectoryStore(place / "a")
    return {
        "collect": recorded,
        "verify": peak(lambda: verify(PROGRAM, {Evidence.EXPERTS: store, Evidence.RANDOMS: store}, lenient)),
        "copy": peak(lambda: TrajectoryStore(place / "b").write(store)),
    }


def test_memory_does_not_grow_with_the_episodes(tmp_path: Path) -> None:
    peaks(1, tmp_path / "warm")  # what is imported and cached at first
    few, many = peaks(3, tmp_path / "few"), peaks(9, tmp_path / "many")
    assert {name for name in few if many[name] > 1.3 * few[name]} == set(), (few, many)
