import pytest
import ray

from carl.errors import VlmError
from carl.serving.local import serving


def test_a_model_that_does_not_load_says_so_and_leaves_nothing(tmp_path: object, ray_cluster: None) -> None:
    free = ray.available_resources()["CPU"]
    with pytest.raises(VlmError, match=r"cannot load the model '.*/nothing'"), serving(f"{tmp_path}/nothing"):
        pass
    assert ray.available_resources()["CPU"] == free
