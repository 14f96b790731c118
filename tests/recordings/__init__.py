"""Recordings of the embedded model's answers, and the small searches that ask for them: DIR/TASK/exchanges.jsonl.

``python benchmarks/record_exchanges.py`` makes them anew. Of other tasks there are none: the embedded model knows
``TASKS`` alone.
"""

from pathlib import Path

from carl.config import EMBEDDED_MODEL, SynthesisConfig, VerifyConfig, VlmConfig
from carl.episodes.play import rollout
from carl.seeding import Role, seeds_of
from carl.synthesis.search import Found, HeldOutGate, SearchGate, search
from carl.synthesis.shown import Episodes, Examples
from carl.synthesis.tried import Budget
from carl.synthesis.vlm_proposer import VlmProposer
from carl.tasks import get_task
from carl.verification import verify
from carl.verification.rule import Evidence
from carl.vlm.client import VlmClient

FOLDER = Path(__file__).parent
TASKS = ("Empty-8x8", "DoorKey-5x5", "DoorKey-6x6", "DoorKey-8x8", "DoorKey-16x16", "Unlock", "UnlockPickup")
VLM = VlmConfig(model=EMBEDDED_MODEL, temperature=0.0, max_tokens=400)

EXPERTS, RANDOMS, STEPS = 4, 4, 30
"""Episodes of a search, and steps at which random play is cut."""


def episodes_of(task: str) -> Episodes:
    """The few episodes that a search of ``task`` sees: always the same."""
    experts, randoms = seeds_of(0, Role.EXPERT, EXPERTS), seeds_of(0, Role.RANDOM, RANDOMS)
    return {
        Evidence.EXPERTS: [rollout(get_task(task), seed, "expert") for seed in experts],
        Evidence.RANDOMS: [rollout(get_task(task), seed, "random", STEPS) for seed in randoms],
    }


def search_of(task: str, client: VlmClient) -> Found:
    """A search with one answer to each request; held-out episodes are those of the search."""
    episodes = episodes_of(task)
    config = VerifyConfig(min_randoms=RANDOMS, max_random_completion=0.25, max_frame_ms=1_000)  # on a busy machine too
    examples = Examples.chosen(episodes, pairs=2)
    proposer = VlmProposer(get_task(task).description, examples, client, SynthesisConfig(samples=1))
    gate = SearchGate(
        lambda program: verify(program, episodes, config),
        HeldOutGate(lambda program, _: verify(program, episodes, config)),
    )
    return search([proposer], gate, Budget(calls=8))
