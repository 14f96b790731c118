"""Every Serve configuration we ship parses, by Serve's own schema and by what it names."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema

from carl.cluster.network import is_loopback
from carl.serving.app import ServingConfig, build

CONFIGS = sorted((Path(__file__).parents[2] / "deployments").glob("*.yaml"))


def application(config: dict[str, Any]) -> dict[str, Any]:
    [only] = config["applications"]
    return dict(only)


def test_there_are_configurations() -> None:
    assert [path.name for path in CONFIGS] == ["vllm.yaml", "vlm-hf.yaml", "vlm-large.yaml", "vlm.yaml"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_serve_takes_it_and_it_is_this_machines_alone(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    schema = ServeDeploySchema.model_validate(config)
    assert set(config) <= set(ServeDeploySchema.model_fields)
    assert is_loopback(f"http://{schema.http_options.host}")
    assert set(application(config)) <= set(type(schema.applications[0]).model_fields)


@pytest.mark.parametrize("path", [path for path in CONFIGS if path.name != "vllm.yaml"], ids=lambda path: path.name)
def test_its_arguments_are_ours(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = application(yaml.safe_load(path.read_text()))
    module, name = app["import_path"].split(":")
    assert getattr(__import__(module, fromlist=[name]), name) is build
    config = ServingConfig.model_validate(app["args"])
    if config.clients_env:
        monkeypatch.setenv(config.clients_env, '{"alice": {"token": "x", "requests_per_day": 9}}')
    build(app["args"])


def test_vllm() -> None:
    """ray.serve.llm itself cannot be imported without vLLM; the record that it validates its arguments with can."""
    from ray.llm._internal.serve.core.configs.llm_config import LLMConfig

    app = application(yaml.safe_load((CONFIGS[0].parent / "vllm.yaml").read_text()))
    assert app["import_path"] == "ray.serve.llm:build_openai_app"
    assert set(app["args"]) == {"llm_configs"}
    [llm] = app["args"]["llm_configs"]
    LLMConfig.model_validate(llm)
    assert set(llm["deployment_config"]["autoscaling_config"]) <= set(AutoscalingConfig.model_fields)
    with pytest.raises(ValidationError, match="Extra inputs"):
        LLMConfig.model_validate({**llm, "deployment_confg": {}})
    if importlib.util.find_spec("vllm"):
        from ray.serve.llm import LLMServingArgs

        LLMServingArgs.model_validate(app["args"])
