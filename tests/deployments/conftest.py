from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from tests.fakes import tiny_vlms


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of tiny random models by architecture."""
    root: Path = tmp_path_factory.mktemp("models")
    return {name: str(make(root / name)) for name, make in tiny_vlms.ARCHITECTURES.items()}


@pytest.fixture(scope="package")
def cluster() -> Iterator[None]:
    """Two CPUs of Ray, in this process's own cluster."""
    ray.shutdown()
    ray.init(num_cpus=2, include_dashboard=False, logging_level="WARNING")
    yield
    ray.shutdown()
