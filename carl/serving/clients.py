"""Clients: their tokens, and their budgets per day."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from carl.errors import ConfigError
from carl.serving.config import ServingConfig

DAY_S = 86_400
RETRY_S = 5
"""Seconds after which a caller without room should retry."""

ANYONE = "anyone"
"""Name of every client of a server without tokens."""


class Budget(BaseModel):
    """A client's limits per day, which begins at 00:00 UTC. None: no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_day: int | None = Field(
        default=None, ge=0, description="Requests that were answered, or whose caller hung up."
    )
    tokens_per_day: int | None = Field(default=None, ge=0, description="Tokens of prompts and answers together.")


class Client(Budget):
    """One entry of the JSON that ``clients_env`` names: ``{"alice": {"token": "...", "tokens_per_day": 1000000}}``."""

    token: str = Field(min_length=1, description="Bearer token of this client alone.")

    @property
    def budget(self) -> Budget:
        """The limits without the token."""
        return Budget(requests_per_day=self.requests_per_day, tokens_per_day=self.tokens_per_day)


@dataclass(frozen=True)
class Clients:
    """Names by the SHA-256 of their tokens, and budgets by name. Holds no token."""

    names: Mapping[str, str]
    budgets: Mapping[str, Budget]

    @classmethod
    def configured(cls, config: ServingConfig) -> Self:
        """The clients of ``token_env`` or ``clients_env``, read from the environment; raises ConfigError."""
        if config.clients_env is not None:
            return cls.of(_parsed(config.clients_env))
        if config.token_env is not None:
            return cls({_digest(_variable(config.token_env, "the bearer token")): "token"}, {})
        return cls({}, {})

    @classmethod
    def of(cls, clients: Mapping[str, Client]) -> Self:
        """The given clients; raises ConfigError if two of them share a token."""
        names = {_digest(client.token): name for name, client in clients.items()}
        if len(names) < len(clients):
            raise ConfigError(f"two of the clients {', '.join(clients)} have the same token")
        return cls(names, {name: client.budget for name, client in clients.items()})

    def named(self, authorisation: str) -> str | None:
        """The client whose bearer token an Authorization header holds; None if there is none.

        Tokens are compared by their hashes, so the time taken does not depend on how much of a guess is right.
        """
        if not self.names:
            return ANYONE
        scheme, _, token = authorisation.partition(" ")
        return self.names.get(_digest(token.strip())) if scheme.lower() == "bearer" else None


@dataclass
class Spent:
    """A client's requests and tokens of today, and the most tokens that its answers under way may take."""

    requests: int = 0
    tokens: int = 0
    under_way: int = 0


@dataclass(frozen=True)
class Refusal:
    """A budget has no room: until midnight UTC (``used_up``), or while other answers are under way."""

    message: str
    retry_s: int
    used_up: bool = True


class Ledger:
    """The use of every client today. It is in memory: after a restart of the server all budgets are full.

    The most that a request may take is reserved before the model sees it, so that several at once do not exceed a
    budget together, except by the length of their prompts, which is an estimate until the answers are there.
    """

    def __init__(self, budgets: Mapping[str, Budget], now: Callable[[], float] = time.time) -> None:
        self._budgets, self._now = budgets, now
        self._day, self._spent = -1, dict[str, Spent]()
        self._under_way: dict[str, tuple[str, int]] = {}

    def admit(self, client: str, request: str, tokens: int) -> Refusal | None:
        """Count a request of ``client`` and reserve the most ``tokens`` that it may take, or return its refusal."""
        spent = self._today(client)
        refusal = self._refusal(client, tokens, spent)
        if refusal is None:
            self._under_way[request] = client, tokens
            spent.requests += 1
            spent.under_way += tokens
        return refusal

    def settle(self, request: str, tokens: int | None) -> None:
        """Replace a request's reservation by the ``tokens`` of prompt and answers; None: it failed, and is not counted.

        Has no effect for a request of yesterday, or of a Ledger that was lost.
        """
        self._roll_over()
        client, reserved = self._under_way.pop(request, ("", 0))
        if client:
            spent = self._today(client)
            spent.under_way -= reserved
            spent.tokens += tokens or 0
            spent.requests -= tokens is None

    def charge(self, client: str, tokens: int) -> None:
        """Count a request of ``client`` that was refused for its size, since it took a place and bandwidth."""
        spent = self._today(client)
        spent.requests += 1
        spent.tokens += tokens

    def _refusal(self, client: str, tokens: int, spent: Spent) -> Refusal | None:
        budget = self._budgets.get(client, Budget())
        most = budget.requests_per_day
        if most is not None and spent.requests >= most:
            message = f"{spent.requests} of {most} requests today"
            if any(name == client for name, _ in self._under_way.values()):
                message = f"the budget of {client!r} has no room unless an answer under way fails: {message}"
                return Refusal(message, RETRY_S, used_up=False)
            return Refusal(f"the budget of {client!r} is used up until 00:00 UTC: {message}", self._reset_s())
        most = budget.tokens_per_day
        if most is None or spent.tokens + spent.under_way + tokens <= most:
            return None
        message = f"{spent.tokens} of {most} tokens today, and this may take {tokens}"
        if spent.tokens + tokens <= most:
            message = f"the budget of {client!r} has no room before its answers under way are there: {message}"
            return Refusal(message, RETRY_S, used_up=False)
        return Refusal(f"the budget of {client!r} is used up until 00:00 UTC: {message}", self._reset_s())

    def _today(self, client: str) -> Spent:
        self._roll_over()
        return self._spent.setdefault(client, Spent())

    def _roll_over(self) -> None:
        day = int(self._now() // DAY_S)
        if day > self._day:  # a clock that is set back starts no new day
            self._day, self._spent, self._under_way = day, {}, {}

    def _reset_s(self) -> int:
        return DAY_S - int(self._now() % DAY_S)


def _parsed(variable: str) -> dict[str, Client]:
    value = _variable(variable, "the clients as JSON")
    try:
        clients = TypeAdapter(dict[str, Client]).validate_python(json.loads(value))
    except ValidationError as error:  # its text would show the tokens
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise ConfigError(f"the environment variable {variable} is wrong at {where}: {first['msg']}") from None
    except ValueError as error:
        raise ConfigError(f"the environment variable {variable} is not JSON: {error}") from None
    if not clients:
        raise ConfigError(f"the environment variable {variable} names no client")
    return clients


def _variable(variable: str, what: str) -> str:
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigError(f"the environment variable {variable} should hold {what}, and is empty")
    return value


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
