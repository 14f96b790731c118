"""The Ray Serve application: HTTP and a token in front of a VlmEngine."""

import hmac
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, ValidationError
from ray import serve
from ray.serve import Application
from starlette.exceptions import HTTPException

from carl.config import EMBEDDED_MODEL
from carl.errors import ConfigError
from carl.serving.batcher import Batcher
from carl.serving.prompt import PromptError
from carl.serving.protocol import ApiError, chat_completion, model_list, parse_request

logger = logging.getLogger(__name__)
QUIET = {"log_level": "WARNING", "enable_access_log": False}


class ServingConfig(BaseModel):
    """Arguments of the application, in YAML or from ``carl serve``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(default=EMBEDDED_MODEL, description="The embedded model, a Hugging Face name or a folder.")
    token_env: str | None = Field(default=None, description="Environment variable with the bearer token; none: open.")
    max_batch_size: int = Field(default=16, ge=1, description="Most answers generated together.")
    batch_wait_s: float = Field(default=0.02, ge=0, description="How long a batch waits for company, in seconds.")
    default_max_tokens: int = Field(default=1024, ge=1, description="Longest answer unless a request says.")
    max_body_mb: float = Field(default=32, gt=0, description="Largest request, in MiB.")
    threads: int | None = Field(
        default=None, ge=1, description="Cores for torch; none: all of them, but one for the embedded model."
    )
    num_cpus: float = Field(default=1, ge=0, description="CPUs reserved for each replica.")
    num_gpus: float = Field(default=0, ge=0, description="GPUs reserved for each replica.")
    resources: dict[str, NonNegativeFloat] = Field(default={}, description="Custom Ray resources, likewise.")
    replicas: int = Field(default=1, ge=1, description="Copies of the model.")


api = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


@api.middleware("http")
async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Nothing but the health route answers without the token, unknown routes included."""
    try:
        if request.url.path.rstrip("/") != "/health":
            replica: Any = serve.get_replica_context().servable_object
            replica.authorise(request.headers.get("authorization", ""))
        return await call_next(request)
    except ApiError as error:
        return JSONResponse(error.body(), error.status)
    except Exception:  # whatever else went wrong is ours: the log has it, and the caller gets OpenAI's error shape
        logger.exception("a request failed")
        return JSONResponse(ApiError(500, "the server failed; its log says why").body(), 500)


@api.exception_handler(ApiError)
async def api_error(_: Request, error: ApiError) -> JSONResponse:
    return JSONResponse(error.body(), error.status)


@api.exception_handler(HTTPException)
async def http_error(request: Request, error: HTTPException) -> JSONResponse:
    message = f"{request.method} {request.url.path}: {error.detail}"
    return JSONResponse(ApiError(error.status_code, message).body(), error.status_code)


@serve.deployment
@serve.ingress(api)
class VlmApp:
    """One replica: one model."""

    def __init__(self, config: ServingConfig, token: str | None) -> None:
        from carl.serving.engine import VlmEngine

        self._config, self._token = config, token
        engine = VlmEngine.load(config.model, config.threads)
        self._batcher = Batcher(engine, config.max_batch_size, config.batch_wait_s)

    def authorise(self, header: str) -> None:
        """Compare a request's bearer token in constant time; raises ApiError(401)."""
        if self._token is None:
            return
        scheme, _, given = header.partition(" ")
        same = hmac.compare_digest(given.strip().encode(), self._token.encode())
        if scheme.lower() != "bearer" or not same:
            raise ApiError(401, "the bearer token is missing or wrong", "invalid_api_key")

    @api.post("/v1/chat/completions")
    async def chat(self, request: Request) -> JSONResponse:
        body = await self._body(request)
        model, prompts = parse_request(body, self._config.default_max_tokens)
        if model != self._config.model:
            raise ApiError(404, f"no model {model!r} here; this is {self._config.model!r}", "model_not_found", "model")
        try:
            answers = await self._batcher.answer(prompts)
        except PromptError as error:
            raise ApiError(400, str(error)) from error
        return JSONResponse(chat_completion(model, answers))

    @api.get("/v1/models")
    async def models(self) -> JSONResponse:
        return JSONResponse(model_list(self._config.model))

    @api.get("/health")
    async def health(self) -> JSONResponse:
        counts = self._batcher
        return JSONResponse(
            {"status": "ok", "batches": counts.batches, "prompts": counts.prompts, "largest_batch": counts.largest}
        )

    async def _body(self, request: Request) -> bytes:
        limit = int(self._config.max_body_mb * 2**20)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise ApiError(413, f"the request is larger than {self._config.max_body_mb:g} MiB", "request_too_large")
        return bytes(body)


def build(args: dict[str, Any]) -> Application:
    """The application that ``args`` (a ServingConfig) describe; raises ConfigError.

    Ray's own token does not guard the routes of Serve, hence ``token_env``. It is read here, where the
    application is built: in the driver, or in the application's runtime environment.
    """
    try:
        config = ServingConfig.model_validate(args)
    except ValidationError as error:
        raise ConfigError(f"cannot serve with these arguments: {error}") from error
    deployment: Any = VlmApp
    application: Application = deployment.options(
        num_replicas=config.replicas,
        max_ongoing_requests=4 * config.max_batch_size,
        ray_actor_options={"num_cpus": config.num_cpus, "num_gpus": config.num_gpus, "resources": config.resources},
        max_constructor_retry_count=1,
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=5,
        logging_config=QUIET,
    ).bind(config, _token(config.token_env))
    return application


def _token(variable: str | None) -> str | None:
    if variable is None:
        return None
    token = os.environ.get(variable, "").strip()
    if not token:
        raise ConfigError(f"the environment variable {variable} should hold the bearer token, and is empty")
    return token
