"""What many tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("carl", deadline=None)  # a busy machine fails no test
hypothesis.settings.load_profile("carl")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch in one thread: on busy cores several wait for each other by spinning, far longer than they work."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One small Ray cluster for the whole session, whose workers can import the tests' fakes."""
    import ray

    tests = Path(__file__).parent
    inherited = os.environ.get("PYTHONPATH")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tests.parent), inherited])))
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
        yield
        ray.shutdown()
