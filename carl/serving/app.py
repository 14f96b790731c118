"""The Ray Serve application: a front that takes requests, and the model behind it, which may scale to zero."""

from typing import Any

import ray
from pydantic import ValidationError
from ray.serve import Application
from ray.serve.config import DeploymentActorConfig

from carl.errors import ConfigError, briefly
from carl.serving.clients import Clients, Ledger
from carl.serving.config import ServingConfig
from carl.serving.front import LEDGER, VlmFront
from carl.serving.model import VlmModel
from carl.serving.weights import context_of

__all__ = ["QUIET", "ServingConfig", "build"]

QUIET = {"log_level": "WARNING", "enable_access_log": False}

HEALTH_S = 3.0
"""Seconds between Serve's health checks of a replica, which also find one that died."""

UNBOUNDED = 1_000_000
"""More requests than a front can hold; Serve needs a number."""

LOOK_BACK_S = 12.0
"""Seconds over which requests are averaged: a little above the 10 s between Serve's counts."""


def build(args: dict[str, Any]) -> Application:
    """The application for ``args``, the fields of a ServingConfig; raises ConfigError.

    Ray's own token does not guard the routes of Serve, hence ``token_env`` and ``clients_env``. They are read here,
    where the application is built: in the driver, or in the application's runtime environment.
    """
    try:
        config = ServingConfig.model_validate(args)
    except ValidationError as error:
        raise ConfigError(f"cannot serve with these arguments: {briefly(error)}") from error
    return _front(config, Clients.configured(config))


def _front(config: ServingConfig, clients: Clients) -> Application:
    """The front, with one replica, since Serve counts the model's queue per caller. The Ledger outlives the replica.

    Serve lets every request through, and the front refuses what is too much: Serve would refuse it without OpenAI's
    error object, and let health checks wait.
    """
    deployment: Any = VlmFront
    ledger = DeploymentActorConfig(
        name=LEDGER, actor_class=ray.remote(Ledger), init_args=(clients.budgets,), actor_options={"num_cpus": 0}
    )
    application: Application = deployment.options(
        num_replicas=1,
        max_ongoing_requests=UNBOUNDED,
        ray_actor_options={"num_cpus": 0},
        deployment_actors=[ledger] if clients.budgets else [],
        logging_config=QUIET,
        **_shutdown(config),
    ).bind(config, clients, context_of(config.model), _model(config))
    return application


def _model(config: ServingConfig) -> Application:
    deployment: Any = VlmModel
    application: Application = deployment.options(
        **_replicas(config),
        max_ongoing_requests=config.ongoing_requests,
        max_queued_requests=config.max_queued_requests,
        ray_actor_options={"num_cpus": config.num_cpus, "num_gpus": config.num_gpus, "resources": config.resources},
        max_constructor_retry_count=1,
        health_check_period_s=HEALTH_S,
        logging_config=QUIET,
        **_shutdown(config),
    ).bind(config)
    return application


def _replicas(config: ServingConfig) -> dict[str, Any]:
    if config.autoscaling is None:
        return {"num_replicas": config.replicas}
    scaling = config.autoscaling
    ours = {
        "initial_replicas": max(1, scaling.min_replicas),
        "target_ongoing_requests": scaling.target_ongoing_requests or config.max_batch_size,
        "look_back_period_s": LOOK_BACK_S,
    }
    return {"autoscaling_config": {**scaling.model_dump(), **ours}}


def _shutdown(config: ServingConfig) -> dict[str, float]:
    """With autoscaling a removed replica may finish its answers for 120 s; a stopped server ends within 5 s."""
    return {
        "graceful_shutdown_wait_loop_s": 0.1,
        "graceful_shutdown_timeout_s": 5.0 if config.autoscaling is None else 120.0,
    }
