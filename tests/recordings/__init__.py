"""Recordings of models' answers for each built-in task, and what asks for them: TASK/exchanges.jsonl.

``python benchmarks/record_exchanges.py`` makes them anew: those of the embedded model, which knows ``TASKS``, by
itself, the others with a model at a server. ``SERVED`` were answered by a strong vision-language model from text and
pictures alone; it remembered earlier requests, which a served one does not.
"""

from pathlib import Path

from carl.config import EMBEDDED_MODEL, SynthesisConfig, VerifyConfig, VlmConfig
from carl.episodes.play import rollout
from carl.program import RewardProgram
from carl.seeding import Role, seeds_of
from carl.synthesis.shown import Episodes, Examples
from carl.synthesis.tried import Budget, BudgetSpentError, Tried
from carl.synthesis.vlm_proposer import VlmProposer
from carl.tasks import BUILT_IN, get_task
from carl.verification import VerificationReport, verify
from carl.verification.rule import Evidence
from carl.vlm.client import VlmClient

FOLDER = Path(__file__).parent
TASKS = ("Empty-8x8", "DoorKey-5x5", "DoorKey-6x6", "DoorKey-8x8", "DoorKey-16x16", "Unlock", "UnlockPickup")
SERVED = tuple(task.name for task in BUILT_IN if task.name not in TASKS)
VLM = VlmConfig(model=EMBEDDED_MODEL, temperature=0.0, max_tokens=400)
STRONG = VlmConfig(model="strong-vlm", min_frame_px=256, timeout_s=3600, patience_s=7200)

EXPERTS, RANDOMS, STEPS, CALLS = 4, 4, 30, 14
"""Episodes of a search, steps at which random play is cut, and requests."""


def settings_of(task: str) -> VlmConfig:
    """What a task's answers were recorded with."""
    return VLM if task in TASKS else STRONG


def episodes_of(task: str) -> Episodes:
    """The few episodes that a search of ``task`` sees: always the same."""
    experts, randoms = seeds_of(0, Role.EXPERT, EXPERTS), seeds_of(0, Role.RANDOM, RANDOMS)
    return {
        Evidence.EXPERTS: [rollout(get_task(task), seed, "expert") for seed in experts],
        Evidence.RANDOMS: [rollout(get_task(task), seed, "random", STEPS) for seed in randoms],
    }


def found_of(task: str, client: VlmClient) -> tuple[RewardProgram, VerificationReport]:
    """The first program of a model that the gate accepts on these episodes, else the last one, and its verdict."""
    episodes = episodes_of(task)
    config = VerifyConfig(
        min_experts=2, min_randoms=RANDOMS, max_random_completion=0.25, max_frame_ms=1_000
    )  # on a busy machine too
    examples = Examples.chosen(episodes, pairs=2)
    proposer = VlmProposer(get_task(task).description, examples, client, SynthesisConfig(samples=1))
    tried = Tried(Budget(calls=CALLS))
    try:
        for proposal in filter(None, proposer.propose(tried)):
            if tried.add(proposal, verify(proposal.program, episodes, config)).report.accepted:
                break
    except BudgetSpentError:
        pass
    return tried.candidates[-1].program, tried.candidates[-1].report
