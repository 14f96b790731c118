"""What a terminal shows of a result."""

from io import StringIO
from typing import Any

from rich.console import Console

from carl.result import summary


def evaluation(**more: int) -> dict[str, Any]:
    return {"episodes": 20, "success_rate": 0.5, "interval": (0.3, 0.7), "mean_length": 9.0, **more}


def shown(*arms: dict[str, Any]) -> str:
    figures = {"headline": "sampled", "env_steps": 1_000, "env_steps_per_s": 10.0, "seconds": 100.0}
    named = {name: figures | arm for name, arm in zip(("code", "sparse"), arms, strict=False)}
    result = {"task": "corridor", "seed": 0, "vlm": None, "seconds": {"train": 1.0}}
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
