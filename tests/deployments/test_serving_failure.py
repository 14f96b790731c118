from pathlib import Path
from typing import Any

import pytest
import ray

from carl.config import VlmConfig
from carl.errors import ResourceError, VlmError
from carl.serving.local import serving
from carl.vlm.client import connect


@pytest.mark.parametrize("args", [{}, {"autoscaling": {}}])
def test_a_model_that_does_not_load_says_so_and_leaves_nothing(
    tmp_path: Path, ray_cluster: None, args: dict[str, Any]
) -> None:
    free = ray.available_resources()["CPU"]
    with (
        pytest.raises(VlmError, match=r"cannot load the model '.*/nothing': there is no such"),
        serving(f"{tmp_path}/nothing", **args),
    ):
        pass
    assert ray.available_resources()["CPU"] == free


def test_what_no_node_has_is_missed_at_once(tmp_path: Path, ray_cluster: None) -> None:
    wanted = VlmConfig(model=f"{tmp_path}/nothing", resources={"GPU": 1, "vlm": 0.5})
    missing = r"a further VLM server \(1 GPU, 0\.5 vlms\): nodes have 0 GPUs, 0 vlms\. Set vlm\.resources"
    with pytest.raises(ResourceError, match=missing), connect(wanted, tmp_path):
        pass
    there = VlmConfig(model=f"{tmp_path}/nothing", resources={"CPU": 1})
    with pytest.raises(VlmError, match="cannot load"), connect(there, tmp_path):
        pass
