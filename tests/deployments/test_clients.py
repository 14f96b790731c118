"""Who may ask, and how much: without Ray."""

import itertools
import json
from contextlib import ExitStack

import pytest

from carl.errors import ConfigError
from carl.serving.app import ServingConfig, build
from carl.serving.clients import ANYONE, DAY_S, Budget, Clients, Ledger, Refusal
from carl.serving.places import Places
from carl.serving.protocol import ApiError

BOTH = {
    "alice": {"token": "secret of alice", "requests_per_day": 2},
    "bob": {"token": "secret of bob", "tokens_per_day": 100},
}


def configured(monkeypatch: pytest.MonkeyPatch, value: object) -> Clients:
    monkeypatch.setenv("TEST_CLIENTS", value if isinstance(value, str) else json.dumps(value))
    return Clients.configured(ServingConfig(clients_env="TEST_CLIENTS"))


def test_tokens_have_names_and_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = configured(monkeypatch, BOTH)
    assert clients.named("Bearer secret of alice") == "alice"
    assert clients.named("bearer  secret of bob ") == "bob"
    assert [clients.named(header) for header in ("", "Bearer", "Basic secret of bob", "Bearer secret")] == [None] * 4
    assert clients.budgets["bob"] == Budget(tokens_per_day=100)
    assert "secret" not in repr(clients)


def test_one_token_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_TOKEN", "x")
    single = Clients.configured(ServingConfig(token_env="TEST_TOKEN"))
    assert (single.named("Bearer x"), single.named("Bearer y"), dict(single.budgets)) == ("token", None, {})
    assert Clients.configured(ServingConfig()).named("") == ANYONE


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "is empty"),
        ("{", "not JSON"),
        ({}, "names no client"),
        (["secret"], "valid dictionary"),
        ({"alice": {"requests_per_day": 2}}, "wrong at alice.token: Field required"),
        ({"alice": {"token": "secret", "requests_per_dya": 2}}, "wrong at alice.requests_per_dya: Extra"),
        ({"alice": {"token": "secret", "tokens_per_day": -1}}, "greater than or equal to 0"),
        ({"alice": {"token": "secret"}, "bob": {"token": "secret"}}, "alice, bob have the same token"),
    ],
)
def test_clients_that_are_wrong(monkeypatch: pytest.MonkeyPatch, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        configured(monkeypatch, value)
    assert "secret" not in str(raised.value)


NAMES = itertools.count()


def admitted(ledger: Ledger, client: str, tokens: int = 10) -> str:
    request = str(next(NAMES))
    assert ledger.admit(client, request, tokens) is None
    return request


def refused(ledger: Ledger, client: str, tokens: int = 10) -> Refusal:
    refusal = ledger.admit(client, str(next(NAMES)), tokens)
    assert refusal is not None
    return refusal


def test_a_budget_of_requests_lasts_until_midnight() -> None:
    now = 10.5 * DAY_S
    ledger = Ledger({"alice": Budget(requests_per_day=2)}, lambda: now)
    requests = [admitted(ledger, "alice") for _ in range(2)]
    refusal = refused(ledger, "alice")
    assert "has no room unless an answer under way fails: 2 of 2 requests today" in refusal.message
    assert not refusal.used_up
    for request in requests:
        ledger.settle(request, 10)
    refusal = refused(ledger, "alice")
    assert refusal.message == "the budget of 'alice' is used up until 00:00 UTC: 2 of 2 requests today"
    assert (refusal.retry_s, refusal.used_up) == (DAY_S // 2, True)
    admitted(ledger, "bob")
    now += refusal.retry_s
    admitted(ledger, "alice")


def test_a_budget_of_tokens_counts_what_was_answered() -> None:
    ledger = Ledger({"bob": Budget(tokens_per_day=100)}, lambda: 0.0)
    for tokens in (60, 24, 6):
        ledger.settle(admitted(ledger, "bob"), tokens)
    admitted(ledger, "bob")
    refusal = refused(ledger, "bob", 11)
    assert "90 of 100 tokens today, and this may take 11" in refusal.message
    assert refusal.used_up


def test_requests_at_once_do_not_exceed_a_budget_together() -> None:
    ledger = Ledger({"bob": Budget(tokens_per_day=100)}, lambda: 0.0)
    requests = [admitted(ledger, "bob", 40) for _ in range(2)]
    refusal = refused(ledger, "bob", 40)
    assert "before its answers under way are there" in refusal.message
    assert not refusal.used_up
    assert refusal.retry_s < 60
    ledger.settle(requests[0], 50)  # its prompt took ten more
    assert not refused(ledger, "bob", 40).used_up
    ledger.settle(requests[1], 5)
    admitted(ledger, "bob", 40)


def test_a_request_that_was_not_answered_costs_nothing() -> None:
    ledger = Ledger({"alice": Budget(requests_per_day=1, tokens_per_day=10)}, lambda: 0.0)
    for _ in range(3):
        ledger.settle(admitted(ledger, "alice"), None)
    ledger.settle(admitted(ledger, "alice"), 10)
    assert refused(ledger, "alice").used_up


def test_what_was_set_aside_yesterday_is_paid_yesterday() -> None:
    now = 0.0
    ledger = Ledger({"alice": Budget(requests_per_day=1, tokens_per_day=10)}, lambda: now)
    request = admitted(ledger, "alice")
    now += DAY_S
    ledger.settle(request, None)
    ledger.settle("of a ledger that was lost", 1000)
    admitted(ledger, "alice")
    assert refused(ledger, "alice").message.endswith("1 of 1 requests today")


def test_a_clock_that_is_set_back_begins_no_new_day() -> None:
    now = 10.5 * DAY_S
    ledger = Ledger({"alice": Budget(requests_per_day=1)}, lambda: now)
    ledger.settle(admitted(ledger, "alice"), 10)
    for now in (9.5 * DAY_S, 10.9 * DAY_S):  # noqa: B007  the ledger's clock
        assert refused(ledger, "alice").used_up
    now = 11.1 * DAY_S
    admitted(ledger, "alice")


def test_what_was_refused_for_its_size_is_paid() -> None:
    ledger = Ledger({"alice": Budget(requests_per_day=1), "bob": Budget(tokens_per_day=100)}, lambda: 0.0)
    for client in ("alice", "bob"):
        ledger.charge(client, 95)
        assert refused(ledger, client).used_up


def test_places_are_few_in_all_and_for_each() -> None:
    places, held = Places(3, 2), ExitStack()
    with held:
        for _ in range(2):
            held.enter_context(places.held("alice"))
        for caller, code in (("alice", "too_many_requests"), ("bob", None), ("carol", "server_full")):
            if code is None:
                held.enter_context(places.held(caller))
                continue
            with pytest.raises(ApiError) as raised, places.held(caller):
                pass
            assert (raised.value.status, raised.value.code, raised.value.headers()) == (
                429,
                code,
                {"retry-after": "5", "x-should-retry": "true"},
            )
    with places.held("carol"), places.held("alice"), places.held("alice"):
        pass


def test_arguments_that_contradict_each_other() -> None:
    for args, message in (
        ({"token_env": "A", "clients_env": "B"}, "exclude each other"),
        ({"replicas": 2, "autoscaling": {}}, "exclude each other"),
        ({"autoscaling": {"min_replicas": 3}}, "is above max_replicas"),
        ({"autoscaling": {"downscale_to_zero": 3}}, "downscale_to_zero"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(args)
