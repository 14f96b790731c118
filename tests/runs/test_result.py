"""What a terminal shows of a result."""

from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from carl.episodes.play import rollout
from carl.episodes.trajectory import TrajectoryStore
from carl.runs.result import experts
from carl.runs.screen import summary
from carl.runs.words import whence
from tests.fakes.corridor import CORRIDOR


def evaluation(**more: int) -> dict[str, Any]:
    return {"episodes": 20, "success_rate": 0.5, "interval": (0.3, 0.7), "mean_length": 9.0, **more}


def shown(*arms: dict[str, Any], **more: Any) -> str:
    figures = {"headline": "sampled", "env_steps": 1_000, "env_steps_per_s": 10.0, "seconds": 100.0}
    named = {name: figures | arm for name, arm in zip(("code", "sparse"), arms, strict=False)}
    result = {"task": "corridor", "seed": 0, "vlm": None, "seconds": {"train": 1.0}} | more
    console = Console(file=StringIO(), width=300)
    console.print(summary(result | {"evaluation": evaluation() | {"arms": named}}))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_episodes_that_were_cut_are_counted_over_arms_and_modes() -> None:
    text = shown(
        {"cut": 3, "sampled": evaluation(cut=4), "greedy": evaluation(cut=5)},
        {"cut": 1, "sampled": evaluation(), "greedy": None},
    )
    assert "4 episodes of training and 9 of evaluation were cut after 10,000 steps" in text
    assert "TimeLimit" in text


def test_without_a_cut_nothing_is_said_of_it() -> None:
    assert "cut" not in shown({"sampled": evaluation(), "greedy": evaluation()})


def test_failures_of_the_expert_are_counted_over_all_stores(tmp_path: Path) -> None:
    episodes = [rollout(CORRIDOR, seed, "random", 3) for seed in range(2)]
    for name, failed in (("expert", 3), ("held-out-1-expert", 1), ("random", 0)):
        store = TrajectoryStore(tmp_path / "trajectories" / name)
        store.finish([store.write_part(episodes)], failed=failed)
    assert experts(tmp_path) == {"recorded": 4, "failed": 4}
    text = shown({"sampled": evaluation(), "greedy": evaluation()}, experts=experts(tmp_path))
    assert "The expert failed in 4 of 8 episodes, which were passed over." in text


def test_an_expert_that_never_fails_is_not_spoken_of() -> None:
    assert "expert" not in shown(
        {"sampled": evaluation(), "greedy": evaluation()}, experts={"recorded": 4, "failed": 0}
    )


def test_a_result_says_who_made_the_program_and_who_approved_it() -> None:
    approvals = [{"by": "Ada", "program": "p1"}, {"by": "Bo", "program": "p0"}]
    known = {"origin": "a model; edited by hand", "parent": "p0", "approvals": approvals}
    assert whence("p1", known) == "The program p1 is by a model; edited by hand, parent p0, approved by Ada."
    assert whence("p2", {}) == ""
