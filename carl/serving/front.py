"""The deployment that takes requests: tokens, budgets, parsing and errors, before the model is used."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.serve.metrics import Counter, Histogram
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from carl.serving.clients import ANYONE, RETRY_S, Clients
from carl.serving.config import ServingConfig
from carl.serving.places import Places
from carl.serving.prompt import Completion, Prompt, PromptError
from carl.serving.protocol import (
    ApiError,
    RequestLimits,
    chat_completion,
    decoded,
    model_list,
    most_tokens,
    parse_request,
)

logger = logging.getLogger(__name__)

LEDGER = "ledger"
"""Name of the Ledger's actor, which exists if clients have budgets."""

SECONDS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]
"""Bounds of the histogram of times."""

HUNG_UP = 499
"""Status under which requests are counted whose callers hung up; it is never sent."""

api = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


@api.middleware("http")
async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuse every request, also for unknown routes, without a token or when all places are taken, except /health."""
    if request.url.path.rstrip("/") == "/health":
        return await call_next(request)
    front: Any = serve.get_replica_context().servable_object
    request.state.client = "unknown"
    try:
        request.state.client = front.client(request.headers.get("authorization", ""))
        with front.places.held(_caller(request)):
            response = await call_next(request)
    except ApiError as error:
        response = _refusal(error)
    except asyncio.CancelledError:
        front.count(request.state.client, HUNG_UP)
        raise
    except Exception:  # any other error is the server's: it is logged, and the caller gets OpenAI's error object
        logger.exception("a request failed")
        response = _refusal(ApiError(500, "the server failed; see its log"))
    front.count(request.state.client, response.status_code)
    return response


@api.exception_handler(ApiError)
async def api_error(_: Request, error: ApiError) -> JSONResponse:
    """An ApiError as its response."""
    return _refusal(error)


@api.exception_handler(HTTPException)
async def http_error(request: Request, error: HTTPException) -> JSONResponse:
    """FastAPI's own errors, such as for an unknown route, in OpenAI's shape."""
    return _refusal(ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}"))


def _caller(request: Request) -> str:
    """The holder of a place: a client's name, or an address on a server without tokens."""
    client: str = request.state.client
    return client if client != ANYONE or request.client is None else request.client.host


def _refusal(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body(), error.status, error.headers())


@serve.deployment
@serve.ingress(api)
class VlmFront:
    """OpenAI's chat completions, passed on to the model. It always runs; the model may have no replica."""

    def __init__(
        self, config: ServingConfig, clients: Clients, context: int | None, model: DeploymentHandle[Any]
    ) -> None:
        self._config, self._clients, self._model = config, clients, model
        self._limits = RequestLimits(config.max_images, int(config.max_megapixels * 2**20), context)
        # As many again as are answered or wait for the model: requests whose bodies are still on their way.
        self.places = Places(2 * config.capacity, config.max_requests_per_client)
        by_status: Any = ("client", "status")  # Ray annotates tags as a tuple of one
        self._requests = Counter("carl_vlm_requests", "Requests by client and status.", by_status)
        self._prompt_tokens = Counter("carl_vlm_prompt_tokens", "Tokens of prompts.", ("client",))
        self._completion_tokens = Counter("carl_vlm_completion_tokens", "Tokens of answers.", ("client",))
        self._seconds = Histogram(
            "carl_vlm_request_seconds", "From an admitted request to its answer.", SECONDS, ("client",)
        )

    def client(self, authorisation: str) -> str:
        """The client whose token an Authorization header holds; raises ApiError(401)."""
        name = self._clients.named(authorisation)
        if name is None:
            raise ApiError(401, "the bearer token is missing or wrong", "invalid_api_key")
        return name

    def count(self, client: str, status: int) -> None:
        """Count a request in the metric ``carl_vlm_requests``."""
        self._requests.inc(tags={"client": client, "status": str(status)})

    @api.post("/v1/chat/completions")
    async def chat(self, request: Request) -> JSONResponse:
        """One chat completion; raises ApiError. A caller that hangs up pays the most that its request could take."""
        client = request.state.client
        try:
            body = await self._body(request)
            model, prompts = await asyncio.to_thread(parse_request, body, self._config.default_max_tokens, self._limits)
        except ApiError as error:
            if error.too_large:
                self._charge(client)
            raise
        if model != self._config.model:
            raise ApiError(404, f"no model {model!r} here; this is {self._config.model!r}", "model_not_found", "model")
        most = most_tokens(prompts)
        settle = await self._admit(client, most)
        cost: int | None = most  # the price of hanging up
        start = asyncio.get_running_loop().time()
        try:
            prompts = await asyncio.to_thread(decoded, prompts)
            completion = chat_completion(model, await self._ask(prompts))
            usage = completion["usage"]
            cost = usage["total_tokens"]
        except asyncio.CancelledError as error:
            raise ApiError(HUNG_UP, "the caller hung up") from error
        except Exception:  # a failure costs the caller nothing, and is raised
            cost = None
            raise
        finally:
            settle(cost)
        self._seconds.observe(asyncio.get_running_loop().time() - start, {"client": client})
        self._prompt_tokens.inc(usage["prompt_tokens"], {"client": client})
        self._completion_tokens.inc(usage["completion_tokens"], {"client": client})
        return JSONResponse(completion)

    @api.get("/v1/models")
    async def models(self) -> JSONResponse:
        """OpenAI's list of models, with the one that is served."""
        return JSONResponse(model_list(self._config.model))

    @api.get("/health")
    async def health(self) -> JSONResponse:
        """Status 200 while the front runs. It does not start the model, whose health Serve checks."""
        return JSONResponse({"status": "ok"})

    async def _ask(self, prompts: list[Prompt]) -> list[Completion]:
        try:
            answers = await self._model.answer.remote(prompts)
        except BackPressureError as error:
            waiting = self._config.max_queued_requests
            message = f"{waiting} requests wait for this model already; ask again in a moment"
            raise ApiError(429, message, "queue_full", retry_s=RETRY_S) from error
        except DeploymentUnavailableError as error:
            raise ApiError(500, "the model could not be loaded; see the server's log", "no_model") from error
        except RayActorError as error:
            raise ApiError(503, "the model's process ended; ask again", "model_lost", retry_s=RETRY_S) from error
        if isinstance(answers, PromptError):
            raise ApiError(400, str(answers)) from answers
        return list(answers)

    async def _admit(self, client: str, tokens: int) -> Callable[[int | None], object]:
        """Reserve ``tokens`` in the client's budget; returns the function to call with the cost. Raises ApiError."""
        if not self._clients.budgets:
            return lambda _: None
        name = uuid.uuid4().hex
        try:
            ledger = serve.get_deployment_actor(LEDGER)
            refusal = await ledger.admit.remote(client, name, tokens)
        except asyncio.CancelledError:  # the caller hung up before the model was used
            ledger.settle.remote(name, None)
            raise
        except (RayActorError, ValueError) as error:  # Serve starts another, in which budgets are full
            raise ApiError(503, "the ledger of budgets is restarting; ask again", retry_s=RETRY_S) from error
        if refusal is not None:
            code = "insufficient_quota" if refusal.used_up else "budget_reserved"
            raise ApiError(429, refusal.message, code, retry_s=refusal.retry_s)
        return lambda cost: ledger.settle.remote(name, cost)  # not awaited

    def _charge(self, client: str) -> None:
        """Count a request that was refused for its size as one of ``default_max_tokens``."""
        if self._clients.budgets:
            with suppress(RayActorError, ValueError):  # Serve starts another ledger, in which budgets are full
                serve.get_deployment_actor(LEDGER).charge.remote(client, self._config.default_max_tokens)

    async def _body(self, request: Request) -> bytes:
        """The whole body; raises ApiError if it is too large, or takes too long to arrive."""
        limit, seconds = int(self._config.max_body_mb * 2**20), self._config.body_timeout_s
        body = bytearray()
        try:
            async with asyncio.timeout(seconds):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limit:
                        message = f"the request is larger than {self._config.max_body_mb:g} MiB"
                        raise ApiError(413, message, "request_too_large")
        except TimeoutError as error:
            raise ApiError(408, f"the request did not arrive within {seconds:g} s", "request_timeout") from error
        except ClientDisconnect as error:
            raise ApiError(HUNG_UP, "the caller hung up") from error
        return bytes(body)
