"""What one training is: its task, its reward, its settings, the files of its directory, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from carl.artefacts import CHECKPOINTS, CURVE, SUBJECT, read_json, write_json
from carl.config import EvaluationConfig, TrainConfig
from carl.errors import ConfigError
from carl.nested import flat
from carl.rewards.mix import Mix
from carl.rewards.source import RewardSource, provenance_of
from carl.task import Task
from carl.training.checkpoint import Checkpoints, Progressed
from carl.training.evaluation import Exam
from carl.training.policy import Policy


@dataclass(frozen=True)
class Training:
    """What to train, and where its curve and checkpoints go.

    Attributes:
        task: the task.
        source: what pays; None where ``mix`` takes nothing from a source.
        mix: what a step is worth, and what the policy is shown.
        run_seed: the seed of the run, of which all others are spawned.
        directory: of its files; its name is the arm's.
        train, evaluation: the sections of the configuration.
        settings: the run's whole configuration, for loggers.
    """

    task: Task
    source: RewardSource | None
    mix: Mix
    run_seed: int
    directory: Path
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def curve(self) -> Path:
        """JSON lines, one per point of the learning curve."""
        return self.directory / CURVE

    @property
    def checkpoints(self) -> Checkpoints:
        """Its checkpoints, the newest of which it continues from."""
        return Checkpoints(self.directory / CHECKPOINTS, self.curve)

    @property
    def env_steps(self) -> int:
        """Environment steps after which it ends."""
        return self.train.env_steps

    def over(self, progressed: Progressed) -> bool:
        """Whether nothing is left to train: the steps are used up, or the success rate is reached."""
        return progressed.solved or progressed.env_steps >= self.env_steps

    def begin(self) -> None:
        """Record in the directory what is trained; raises ConfigError if it holds a training of something else."""
        path = self.directory / SUBJECT
        subject = {
            "task": self.task.name,
            "seed": self.run_seed,
            "algorithm": self.train.algorithm,
            "mix": self.mix.noted,
            "program": self.source.id if self.source else None,
        }
        there = read_json(path, dict) if self.checkpoints.newest() and path.exists() else subject
        # The source may be another by now, and gets the next version; an older carl did not record it.
        there = {key: value for key, value in there.items() if key != "provenance"}
        if there | {"program": subject["program"], "mix": Mix.renoted(there.get("mix"))} != subject:
            raise ConfigError(
                f"{self.directory} holds a training of {there}, which cannot go on as {subject}: set back what was "
                "changed, or give another run directory"
            )
        write_json(path, subject | {"provenance": provenance_of(self.source)})

    @property
    def about(self) -> dict[str, Any]:
        """What loggers record of this training, by name."""
        return flat(self.settings) | {
            "name": f"{self.task.name}-{self.run_seed}-{self.directory.name}",
            "task": self.task.name,
            "seed": self.run_seed,
            "arm": self.directory.name,
            "algorithm": self.train.algorithm,
            "program_id": self.source.id if self.source else None,
        }

    @property
    def exam(self) -> Exam:
        """What its policies are examined on."""
        return Exam(self.task, self.mix, self.source, self.run_seed)


@dataclass(frozen=True)
class Trained:
    """How far the training came, and the checkpoint of its end."""

    progressed: Progressed
    checkpoint: Path

    @property
    def policy(self) -> Policy:
        """The trained policy; raises StoreError."""
        return Policy.of(self.checkpoint)
