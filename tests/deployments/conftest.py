from pathlib import Path

import pytest

from tests.fakes import tiny_vlms


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of tiny random models by architecture."""
    root: Path = tmp_path_factory.mktemp("models")
    return {name: str(make(root / name)) for name, make in tiny_vlms.ARCHITECTURES.items()}
