"""The training loop: iterate, ask the teacher, evaluate, keep a learning curve and checkpoints."""

import logging
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from carl.artefacts import LIVE, write_json
from carl.broadcast.channel import ChannelClient
from carl.broadcast.versions import Overview
from carl.cluster.metrics import record, record_counts
from carl.console.progress import Progress
from carl.episodes.trajectory import Trajectory
from carl.errors import StoreError, briefly
from carl.rewards.session import blaming_source
from carl.rewards.source import provenance_of
from carl.seeding import Role
from carl.training.abstains import Spells
from carl.training.checkpoint import ALGORITHM, Progressed
from carl.training.curve import append, point, truncate
from carl.training.evaluation import Evaluation, Evaluator, Exam, Outcome
from carl.training.loggers import Log
from carl.training.policy import Policy
from carl.training.rllib.control import Sampled, acting_module, begin_anew, iterate, living_runners, weights_of
from carl.training.rllib.divergence import check_weights
from carl.training.sources import Sources
from carl.training.stopping import SELECTION_EPISODES, Patience, Rate, Screen
from carl.training.teacher import Anew, Iteration, Teacher
from carl.training.training import Trained, Training

_log = logging.getLogger(__name__)


class Loop:
    """One training at work: ``algorithm`` samples and learns, and is paid by what ``channel`` holds."""

    def __init__(
        self,
        training: Training,
        algorithm: Any,
        channel: ChannelClient,
        evaluator: Evaluator,
        progressed: Progressed,
        log: Log,
        teacher: Teacher | None = None,
        sources: Sources | None = None,
    ) -> None:
        self._training, self._algorithm, self._channel, self._evaluator = training, algorithm, channel, evaluator
        self._log, self._teacher = log, teacher
        self._arm = training.directory.name
        self._overview = Overview(channel)
        self._sources = sources or Sources(training.source)
        source = self._sources.at(progressed.reward_version)
        self._progressed = replace(
            progressed, source_id=source.id if source else None, provenance=provenance_of(source)
        )
        self._patience, self._spells = Patience(), Spells(self._arm)
        self._since_point, self._screen = Rate(), Screen(training.train.stop_at_success)
        self._means: dict[str, float] = {}
        self._outcomes: list[Outcome] = []
        self._untrained = weights_of(algorithm) if teacher else None

    def restore(self, checkpoint: Path) -> None:
        """Take weights, optimizer state and counters from ``checkpoint``; drop points of the curve after it.

        Raises StoreError for a checkpoint that this version cannot read.
        """
        try:
            self._algorithm.restore_from_path(checkpoint / ALGORITHM)
        except Exception as error:  # unpickling raises whatever it stumbles over
            raise StoreError(
                f"cannot go on from {checkpoint}: it is of another version of carl or Ray "
                f"({type(error).__name__}: {briefly(error)}); train anew in another run directory"
            ) from error
        truncate(self._training.curve, self._progressed.curve_points)

    def run(self, progress: Progress) -> Trained:
        """Iterate to the end of the training; write its curve, ``live.json`` and checkpoints on the way."""
        training = self._training
        training.directory.mkdir(parents=True, exist_ok=True)
        if not self._progressed.iterations:
            truncate(training.curve, 0)
        while True:
            iteration = self._iterate()
            self._progressed = replace(self._progressed, solved=self._solved())
            done = training.over(self._progressed)
            progress("training", min(self._progressed.env_steps, training.env_steps), training.env_steps)
            self._teach(iteration)
            if done or self._progressed.iterations % training.train.evaluate_every == 0:
                self._add_point()
            if done or self._progressed.iterations % training.train.checkpoint_every == 0:
                check_weights(self._algorithm)
                path = training.checkpoints.save(self._algorithm, self._progressed, self._alive)
            if done:
                return Trained(self._progressed, path)

    def _iterate(self) -> Iteration:
        """One iteration of sampling and learning, counted and recorded."""
        started = time.perf_counter()
        sampled = iterate(self._algorithm)
        seconds = time.perf_counter() - started
        self._overview.look()
        self._patience.expect(sampled.env_steps, seconds)
        before, self._progressed = self._progressed, self._advanced(sampled, seconds)
        write_json(self._training.directory / LIVE, asdict(self._progressed))
        self._since_point.add(sampled.ended, sampled.succeeded)
        self._screen.add(sampled.ended, sampled.succeeded)
        self._means |= sampled.means
        self._log(self._progressed.env_steps, {f"training/{key}": value for key, value in sampled.means.items()})
        self._record(before)
        return self._iteration(sampled)

    def _advanced(self, sampled: Sampled, seconds: float) -> Progressed:
        """The counters after an iteration that ``sampled`` in ``seconds``."""
        before = self._progressed
        version = sampled.version or before.reward_version
        number = before.iterations + 1
        spell = self._spells.look(sampled.counts, number)
        return replace(
            before,
            env_steps=before.env_steps + sampled.env_steps,
            episodes=before.episodes + sampled.ended,
            succeeded=before.succeeded + sampled.succeeded,
            counts=before.counts | {key: before.counts.get(key, 0) + count for key, count in sampled.counts.items()},
            abstaining=before.abstaining + spell,
            stale_steps=before.stale_steps + self._overview.stale(Counter(sampled.paid_by)),
            iterations=number,
            seconds=before.seconds + seconds,
            reward_version=version,
            source_id=self._overview.source_id(version) or before.source_id,
            provenance=provenance_of(self._sources.at(version)),
        )

    def _record(self, before: Progressed) -> None:
        """Record this iteration's figures as metrics."""
        now, arm = self._progressed, self._arm
        succeeded = now.succeeded - before.succeeded
        record("carl_env_runners", living_runners(self._algorithm), arm=arm)
        record("carl_env_steps", now.env_steps - before.env_steps, arm=arm)
        record("carl_episodes", succeeded, arm=arm, outcome="success")
        record("carl_episodes", now.episodes - before.episodes - succeeded, arm=arm, outcome="failure")
        record("carl_return", self._means.get("mean_return"), arm=arm)
        record("carl_episode_length", self._means.get("mean_length"), arm=arm)
        record("carl_reward_version", now.reward_version, arm=arm)
        record("carl_stale_steps", now.stale_steps - before.stale_steps, arm=arm)
        record_counts({key: count - before.counts.get(key, 0) for key, count in now.counts.items()}, arm)

    def _iteration(self, sampled: Sampled) -> Iteration:
        """What the iteration that ``sampled`` came to, for the teacher."""
        now = self._progressed
        return Iteration(
            number=now.iterations,
            env_steps=now.env_steps,
            sampled=sampled.env_steps,
            ended=sampled.ended,
            succeeded=sampled.succeeded,
            means=dict(self._means),
            counts=sampled.counts,
            version=now.reward_version,
            source_id=now.source_id,
            acknowledged=self._overview.acknowledged,
            refused=self._overview.refused,
            source=self._sources.at(now.reward_version),
            point=now.curve_points,
            outcomes=self._outcomes,
            film=self._film,
        )

    def _teach(self, iteration: Iteration) -> None:
        """Publish the source that the teacher returns, if it returns one."""
        with blaming_source(str(iteration.source_id), "its teacher"):
            source = self._teacher.after(iteration) if self._teacher else None
        if isinstance(source, Anew):
            begin_anew(self._algorithm, self._untrained)
            source = source.source
        if source is not None:
            version = self._channel.publish(source)
            self._sources = self._sources.add(version, source)
            _log.info("%s: reward version %d is %s", self._arm, version, source.id, extra={"arm": self._arm})

    @property
    def _alive(self) -> Sources:
        """The sources that a training which goes on from here needs."""
        refused = [refusal.version for refusal in self._overview.refused.values()]
        return self._sources.alive(self._progressed.reward_version, refused)

    def _add_point(self) -> None:
        """Evaluate on the episodes of the curve, and add a point to it."""
        episodes = self._training.evaluation.curve_episodes
        self._outcomes = self._evaluator.play(self._exam(), self._policy(), Role.CURVE, episodes, greedy=False)
        evaluation = Evaluation.of(self._outcomes, greedy=False)
        self._progressed = replace(self._progressed, curve_points=self._progressed.curve_points + 1)
        added = point(self._progressed, self._means, self._since_point.value, evaluation)
        self._since_point.clear()
        record("carl_success_rate", evaluation.success_rate, arm=self._arm)
        append(self._training.curve, added)
        numbers = {key: value for key, value in added.items() if isinstance(value, int | float)}
        self._log(self._progressed.env_steps, {f"curve/{key}": value for key, value in numbers.items()})
        figures = {key: added[key] for key in ("env_steps", "success_rate", "mean_return", "reward_version")}
        _log.info("%(env_steps)d steps, success %(success_rate).3f", figures, extra={"arm": self._arm, **figures})

    def _solved(self) -> bool:
        """Whether the goal is reached: training episodes screen, since they cost nothing; selection episodes decide."""
        goal = self._training.train.stop_at_success
        if goal is None or not self._screen.passes():
            return False
        found = self._evaluator.evaluate(self._exam(), self._policy(), Role.SELECTION, SELECTION_EPISODES, greedy=False)
        return found.success_rate >= goal

    def _film(self, episodes: int, cut: int | None) -> list[Trajectory]:
        return self._evaluator.film(self._exam(), self._policy(), self._progressed.iterations, episodes, cut)

    def _policy(self) -> Policy:
        return Policy(acting_module(self._algorithm))

    def _exam(self) -> Exam:
        """What the policy is examined on now, paid by the newest source in use."""
        self._overview.look()
        return replace(self._training.exam, channel=self._channel, offers=self._overview.in_use)
