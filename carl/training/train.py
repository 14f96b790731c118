"""The training loop: iterate, evaluate, keep a learning curve and checkpoints, and resume from them."""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from carl.artefacts import CURVE, LIVE, STATE, SUBJECT, read_json, write_json, write_text
from carl.broadcast.channel import ChannelClient, reward_channel
from carl.broadcast.versions import Overview
from carl.cluster.core import lost
from carl.cluster.metrics import forget, record, record_counts
from carl.config import EvaluationConfig, TrainConfig, flat
from carl.console.progress import Progress, silent, working
from carl.errors import ConfigError, ResourceError, StoreError, briefly
from carl.rewards.mix import Mix
from carl.rewards.source import RewardSource
from carl.seeding import Role
from carl.task import Task
from carl.training.abstains import too_many
from carl.training.checkpoint import ALGORITHM, Checkpoints, Progressed
from carl.training.evaluation import Evaluation, Evaluator, Exam
from carl.training.loggers import Log, logging_to
from carl.training.policy import Policy
from carl.training.rllib.algorithms import build
from carl.training.rllib.control import acting_module, iterate, living_runners, stop
from carl.training.rllib.divergence import check_weights
from carl.training.rllib.runner import RunnerSetup

SELECTION_EPISODES = 100
"""Episodes on which an early stop is decided."""

SCREEN_EPISODES, SCREEN_MARGIN = 32, 0.05
"""Training episodes at a time that must come within the margin of the goal before the selection episodes are played."""

PATIENCE_S = 120.0
"""How long to sample without a single step, runners dying one after the other, before training gives up."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """What to train, and where its curve and checkpoints go; ``told`` is the run's whole configuration, for loggers."""

    task: Task
    source: RewardSource | None
    mix: Mix
    run_seed: int
    directory: Path
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def curve(self) -> Path:
        """JSON lines, one per point of the learning curve."""
        return self.directory / CURVE

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.directory / "checkpoints", self.curve)

    @property
    def env_steps(self) -> int:
        return self.train.env_steps or self.task.env_steps

    def over(self, progressed: Progressed) -> bool:
        """Whether nothing is left to train: the steps are used up, or the success rate is reached."""
        return progressed.solved or progressed.env_steps >= self.env_steps

    def begin(self) -> None:
        """Note what is trained; raises ConfigError if the directory holds a training of something else."""
        path = self.directory / SUBJECT
        subject = {
            "task": self.task.name,
            "seed": self.run_seed,
            "algorithm": self.train.algorithm or self.task.algorithm,
            "mix": self.mix.noted,
            "program": self.source.id if self.source else None,
        }
        there = read_json(path, dict) if self.checkpoints.newest() and path.exists() else subject
        # The program may be another by now, and gets the next version; an older carl did not note it.
        if there | {"program": subject["program"], "mix": Mix.renoted(there.get("mix"))} != subject:
            raise ConfigError(
                f"{self.directory} holds a training of {there}, which cannot go on as {subject}: set back what was "
                "changed, or give another run directory"
            )
        write_json(path, subject)

    @property
    def about(self) -> dict[str, Any]:
        """What loggers are told of this training."""
        return flat(self.told) | {
            "name": f"{self.task.name}-{self.run_seed}-{self.directory.name}",
            "task": self.task.name,
            "seed": self.run_seed,
            "arm": self.directory.name,
            "algorithm": self.train.algorithm or self.task.algorithm,
            "program_id": self.source.id if self.source else None,
        }

    @property
    def exam(self) -> Exam:
        return Exam(self.task, self.mix, self.source, self.run_seed)


@dataclass(frozen=True)
class Trained:
    """How far the training came, and the checkpoint of its end."""

    progressed: Progressed
    checkpoint: Path

    @property
    def policy(self) -> Policy:
        return Policy.of(self.checkpoint)


def train(
    training: Training,
    progress: Progress = silent,
    *,
    evaluator: Evaluator | None = None,
    on_iteration: Callable[[ChannelClient], None] | None = None,
) -> Trained:
    """Train until the environment steps are used up or the success rate is reached; continue where it stopped.

    Ray has to be initialised. Without an ``evaluator`` it starts one of its own. ``on_iteration`` is called after
    each iteration with the reward's channel, through which another source may be published.

    Raises:
        ConfigError: a code reward without a source.
        ResourceError: too few CPUs, or env runners that keep dying.
    """
    if training.mix.looks and training.source is None:
        raise ConfigError(
            "this reward needs a source: hand over a verified program, or train with reward.source=sparse"
        )
    latest = training.checkpoints.latest()
    progressed = Progressed.read(latest / STATE) if latest else Progressed()
    training.begin()
    if latest and training.over(progressed):
        return Trained(progressed, latest)
    progressed = replace(progressed, rework_steps=_rework(training, progressed))
    if latest:
        progressed = replace(progressed, generation=progressed.generation + 1)
    with reward_channel(_last_version(training, progressed)) as channel:
        if training.mix.looks and training.source is not None:
            channel.publish(training.source)
        setup = RunnerSetup(training.task, training.mix, training.run_seed, channel, progressed.generation)
        with (
            nullcontext(evaluator) if evaluator else Evaluator() as judge,
            logging_to(training.train.loggers, training.directory, training.about) as log,
        ):
            with working(progress, "starting the env runners"):
                algorithm = build(setup, training.train)
            loop = _Loop(training, algorithm, channel, judge, progressed, log)
            try:
                if latest:
                    loop.restore(latest)
                return loop.run(progress, on_iteration)
            finally:
                if not lost():
                    stop(loop.algorithm)
                forget(training.directory.name)


def _rework(training: Training, checkpoint: Progressed) -> int:
    """Steps that were lost in stops, the last one included: it had come as far as it noted in ``LIVE``."""
    path = training.directory / LIVE
    reached = Progressed.read(path) if path.exists() else checkpoint
    return reached.rework_steps + max(0, reached.env_steps - checkpoint.env_steps)


def _last_version(training: Training, progressed: Progressed) -> int:
    """The version before the one to publish: the same source keeps its version, another gets the next."""
    same = training.source is not None and training.source.id == progressed.source_id
    return progressed.reward_version - 1 if same else progressed.reward_version


class _Loop:
    """One training at work."""

    def __init__(
        self,
        training: Training,
        algorithm: Any,
        channel: ChannelClient,
        evaluator: Evaluator,
        progressed: Progressed,
        log: Log,
    ) -> None:
        self.algorithm = algorithm
        self._log = log
        self._training, self._channel, self._evaluator = training, channel, evaluator
        self._arm = training.directory.name
        self._overview = Overview(channel)
        source = training.source
        self._progressed = replace(progressed, source_id=source.id if source else None)
        self._fruitless_s = 0.0
        self._abstaining = False
        self._since_point: Counter[str] = Counter()
        self._since_screen: Counter[str] = Counter()
        self._means: dict[str, float] = {}

    def restore(self, checkpoint: Path) -> None:
        """Take weights, optimizer state and counters from ``checkpoint``; drop points of the curve after it."""
        try:
            self.algorithm.restore_from_path(checkpoint / ALGORITHM)
        except Exception as error:  # unpickling raises whatever it stumbles over
            raise StoreError(
                f"cannot go on from {checkpoint}: it is of another version of carl or Ray "
                f"({type(error).__name__}: {briefly(error)}); train anew in another run directory"
            ) from error
        _truncate(self._training.curve, self._progressed.curve_points)

    def run(self, progress: Progress, on_iteration: Callable[[ChannelClient], None] | None) -> Trained:
        training = self._training
        training.directory.mkdir(parents=True, exist_ok=True)
        if not self._progressed.iterations:
            _truncate(training.curve, 0)
        while True:
            self._iterate()
            self._progressed = replace(self._progressed, solved=self._solved())
            done = training.over(self._progressed)
            progress("training", min(self._progressed.env_steps, training.env_steps), training.env_steps)
            if on_iteration:
                on_iteration(self._channel)
            if done or self._progressed.iterations % training.train.evaluate_every == 0:
                self._add_point()
            if done or self._progressed.iterations % training.train.checkpoint_every == 0:
                check_weights(self.algorithm)
                path = training.checkpoints.save(self.algorithm, self._progressed)
            if done:
                return Trained(self._progressed, path)

    def _iterate(self) -> None:
        """One iteration of sampling and learning."""
        started = time.perf_counter()
        sampled = iterate(self.algorithm)
        seconds = time.perf_counter() - started
        self._overview.look()
        version = sampled.version or self._progressed.reward_version
        self._expect_steps(sampled.env_steps, seconds)
        before = self._progressed
        self._progressed = replace(
            before,
            env_steps=before.env_steps + sampled.env_steps,
            episodes=before.episodes + sampled.ended,
            succeeded=before.succeeded + sampled.succeeded,
            counts=before.counts | {key: before.counts.get(key, 0) + n for key, n in sampled.counts.items()},
            stale_steps=before.stale_steps + self._overview.stale(sampled.paid_by),
            iterations=before.iterations + 1,
            seconds=before.seconds + seconds,
            reward_version=version,
            source_id=self._overview.source_id(version) or before.source_id,
        )
        self._look_for_abstains(before)
        write_json(self._training.directory / LIVE, asdict(self._progressed))
        for counts in (self._since_point, self._since_screen):
            counts.update({"ended": sampled.ended, "succeeded": sampled.succeeded})
        self._means |= sampled.means
        self._log(self._progressed.env_steps, {f"training/{key}": value for key, value in sampled.means.items()})
        self._tell(before)

    def _tell(self, before: Progressed) -> None:
        """Publish this iteration's figures as metrics."""
        now, arm = self._progressed, self._arm
        succeeded = now.succeeded - before.succeeded
        record("carl_env_runners", living_runners(self.algorithm), arm=arm)
        record("carl_env_steps", now.env_steps - before.env_steps, arm=arm)
        record("carl_episodes", succeeded, arm=arm, outcome="success")
        record("carl_episodes", now.episodes - before.episodes - succeeded, arm=arm, outcome="failure")
        record("carl_return", self._means.get("mean_return"), arm=arm)
        record("carl_episode_length", self._means.get("mean_length"), arm=arm)
        record("carl_reward_version", now.reward_version, arm=arm)
        record("carl_stale_steps", now.stale_steps - before.stale_steps, arm=arm)
        record_counts({key: count - before.counts.get(key, 0) for key, count in now.counts.items()}, arm)

    def _look_for_abstains(self, before: Progressed) -> None:
        """Count an iteration of too many abstains, and warn at the beginning of a spell of these."""
        now = self._progressed
        judged, abstained = (now.counts.get(key, 0) - before.counts.get(key, 0) for key in ("judged", "abstains"))
        began, self._abstaining = self._abstaining, too_many(judged, abstained)
        if self._abstaining:
            self._progressed = replace(now, abstaining=now.abstaining + 1)
            if not began:
                _log.warning(
                    "%s: %d of the %d frames of iteration %d could not be judged and earned nothing",
                    *(self._arm, abstained, judged, now.iterations),
                    extra={"arm": self._arm},
                )

    def _expect_steps(self, steps: int, seconds: float) -> None:
        """Give runners that were restarted time to come up; raise ResourceError if they never do."""
        pause = 0.5
        self._fruitless_s = 0.0 if steps else self._fruitless_s + seconds + pause
        if self._fruitless_s > PATIENCE_S:
            raise ResourceError(
                f"no environment step for {PATIENCE_S:g} s: the env runners keep failing. Their errors are in Ray's "
                "logs (session_latest/logs in Ray's temporary directory)"
            )
        if not steps:
            time.sleep(pause)

    def _add_point(self) -> None:
        episodes = self._training.evaluation.curve_episodes
        evaluation = self._evaluate(Role.CURVE, episodes)
        ended = self._since_point["ended"]
        self._progressed = replace(self._progressed, curve_points=self._progressed.curve_points + 1)
        point = {
            "env_steps": self._progressed.env_steps,
            "seconds": round(self._progressed.seconds, 3),
            "episodes": self._progressed.episodes,
            "succeeded": self._progressed.succeeded,
            "mean_return": self._means.get("mean_return"),
            "mean_length": self._means.get("mean_length"),
            "training_success_rate": self._since_point["succeeded"] / ended if ended else None,
            "success_rate": evaluation.success_rate,
            "evaluation": evaluation.to_dict(),
            "iterations": self._progressed.iterations,
            "abstains": self._progressed.abstains,
            "abstaining": self._progressed.abstaining,
            "cut": self._progressed.cut,
            "reward": self._progressed.counts,
            "stale_steps": self._progressed.stale_steps,
            "rework_steps": self._progressed.rework_steps,
            "reward_version": self._progressed.reward_version,
        }
        record("carl_success_rate", evaluation.success_rate, arm=self._arm)
        with self._training.curve.open("a") as file:
            file.write(json.dumps(point) + "\n")
        numbers = {key: value for key, value in point.items() if isinstance(value, int | float)}
        self._log(self._progressed.env_steps, {f"curve/{key}": value for key, value in numbers.items()})
        told = {key: point[key] for key in ("env_steps", "success_rate", "mean_return", "reward_version")}
        _log.info("%(env_steps)d steps, success %(success_rate).3f", told, extra={"arm": self._arm, **told})
        self._since_point.clear()

    def _solved(self) -> bool:
        """Whether the goal is reached: training episodes screen, since they cost nothing; selection episodes decide."""
        goal, counts = self._training.train.stop_at_success, self._since_screen
        if goal is None or counts["ended"] < SCREEN_EPISODES:
            return False
        screened = counts["succeeded"] / counts["ended"]
        counts.clear()
        return (
            screened >= goal - SCREEN_MARGIN and self._evaluate(Role.SELECTION, SELECTION_EPISODES).success_rate >= goal
        )

    def _evaluate(self, role: Role, episodes: int) -> Evaluation:
        self._overview.look()
        exam = replace(self._training.exam, channel=self._channel, offers=self._overview.in_use)
        policy = Policy(acting_module(self.algorithm))
        return self._evaluator.evaluate(exam, policy, role, episodes, greedy=False)


def _truncate(curve: Path, points: int) -> None:
    """Keep the first ``points`` lines."""
    lines = curve.read_text().splitlines(keepends=True)[:points] if curve.exists() else []
    write_text(curve, "".join(lines))
