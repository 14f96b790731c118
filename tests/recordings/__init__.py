"""Recordings of the embedded model's answers, and what asks for them: TASK/exchanges.jsonl.

``python benchmarks/record_exchanges.py`` makes them anew. Of other tasks there are none: the embedded model knows
``TASKS`` alone.
"""

from pathlib import Path

from carl.config import EMBEDDED_MODEL, SynthesisConfig, VerifyConfig, VlmConfig
from carl.episodes.play import rollout
from carl.program import RewardProgram
from carl.seeding import Role, seeds_of
from carl.synthesis.shown import Episodes, Examples
from carl.synthesis.tried import Budget, Tried
from carl.synthesis.vlm_proposer import VlmProposer
from carl.tasks import get_task
from carl.verification import VerificationReport, verify
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


def first_of(task: str, client: VlmClient) -> tuple[RewardProgram, VerificationReport]:
    """The first program that a model writes, with one answer to each request, and what the gate says of it."""
    episodes = episodes_of(task)
    config = VerifyConfig(min_randoms=RANDOMS, max_random_completion=0.25, max_frame_ms=1_000)  # on a busy machine too
    examples = Examples.chosen(episodes, pairs=2)
    proposer = VlmProposer(get_task(task).description, examples, client, SynthesisConfig(samples=1))
    program = next(each.program for each in proposer.propose(Tried(Budget(calls=8))) if each)
    return program, verify(program, episodes, config)
