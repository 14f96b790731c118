"""The driver: collect, synthesize, verify, train, evaluate, report. Each stage goes on from what it finds on disk."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

from carl.artefacts import LIVE, PROGRAM, RESULT, SUBJECT, VERIFICATION, whole
from carl.cluster.core import CoreLostError, clearly
from carl.cluster.logs import about, for_a_while
from carl.cluster.session import ray_running
from carl.config import Arm, RewardConfig, RunConfig
from carl.console.progress import Progress, silent, working
from carl.errors import ConfigError, did_you_mean
from carl.methods import code
from carl.methods.method import Work
from carl.runs.directory import ORDER, RunDirectory
from carl.runs.holding import claimed, held
from carl.runs.resolve import by_default, resolved
from carl.runs.result import assemble
from carl.runs.stages import FOR_A_PROGRAM
from carl.runs.storage import Mirror, Storage
from carl.runs.words import ARM_NAMES
from carl.tasks import get_task
from carl.training.abstains import sentences

STAGES = ORDER

_log = logging.getLogger(__name__)


class Pipeline:
    """One run: its task, its directory and its stages.

    Raises TaskError or ConfigError before anything is written if the task is unknown or the directory, or the storage,
    holds another run; and StoreError if the storage cannot be reached.
    """

    def __init__(self, config: RunConfig, progress: Progress = silent) -> None:
        self.task = get_task(config.task)
        self.config = config = resolved(config, self.task)
        storage = Storage(config.storage) if config.storage else None
        here = storage and storage.folder and storage.folder.resolve() == config.directory.resolve()
        self._storage = None if here else storage
        self._progress = progress
        with held(config.directory), claimed(self._storage, progress):
            if self._storage:
                self._storage.pull(config.directory)
            self.dir = RunDirectory(config, self._check_training, by_default(self.task, type(config)))
        about(run=config.id, program=None)

    def run(self, stages: Sequence[str] = STAGES) -> dict[str, Any] | None:
        """Run those of ``stages`` that are not done yet; returns the run's result if there is one by then."""
        for stage in stages:
            if stage not in STAGES:
                raise ConfigError(f"there is no stage {stage!r}{did_you_mean(stage, STAGES)}")
        with ExitStack() as self._held:
            self._held.enter_context(held(self.dir.path))
            self._held.enter_context(claimed(self._storage, self._progress))
            if self._storage:
                self._held.enter_context(Mirror(self._storage, self.dir.path))
            self._ray = self._held.enter_context(ExitStack())
            left = [stage for stage in stages if stage != "report" and not self.dir.done(stage)]
            if left:
                with self.dir.attempt(left[0]), working(self._progress, "trying the task"):
                    self._try_task(left)
            for stage in stages:
                if stage == "report" or not self._done(stage):
                    with self.dir.attempt(stage):
                        self._do(stage)
        return self.dir.read(RESULT)  # type: ignore[no-any-return]  # JSON

    def _done(self, stage: str) -> bool:
        """Whether nothing is left to do; a training's program has to be the verified one still."""
        of_a_program = self.config.learns_from_code and stage in ("train", "evaluate")
        return self.dir.done(stage) and (not of_a_program or self.dir.done("verify"))

    @property
    def abstaining(self) -> list[str]:
        """What to say of trainings whose reward could too often not judge."""
        found: list[str] = []
        for arm in self.config.arms:
            name = f"training/{arm}/{LIVE}"
            with whole(str(self.dir / name)):
                found += sentences({arm: self.dir.read(name, {})}, ARM_NAMES)
        return found

    def _do(self, stage: str) -> None:
        """Run a stage; where Ray's core is lost meanwhile, go on with another one, once."""
        try:
            self._try(stage)
        except CoreLostError as error:
            _log.warning("%s. Once more with another Ray", error)
            self._ray.close()
            vars(self).pop("_evaluator", None)  # its processes are gone
            self._try(stage)

    def _try(self, stage: str) -> None:
        with clearly():
            for arm in self.config.arms if stage in ("train", "evaluate") else ():
                if arm != "sparse":
                    self._check_program(arm)
            if stage != "report":
                self._ray.enter_context(ray_running(self._progress))
            with self.dir.stage(stage):
                if stage not in FOR_A_PROGRAM:
                    getattr(self, stage)()
                elif self.config.learns_from_code:
                    next(one for one in code.STAGES if one.name == stage).run(self._work)

    @property
    def _work(self) -> Work[RunConfig]:
        return Work(self.task, self.config, self.dir.path, self._progress)

    # The stages, in order

    def train(self) -> None:
        """Train on the program's reward, then on the sparse baselines for as many steps."""
        from carl.training.train import train

        for arm in self.config.arms:
            with self._training(arm) as training:
                train(training, self._labelled(arm), evaluator=self._evaluator)

    def evaluate(self) -> None:
        """Examine every arm on seeds that nothing else uses, record an episode of each, and sum up the run."""
        from carl.training.final import examine

        outcomes = {}
        for arm in self.config.arms:
            with self._training(arm) as training:
                outcomes[arm] = examine(training, self._evaluator, self._labelled(arm))
        self.dir.write(RESULT, assemble(self.task, self.config, self.dir, outcomes))

    def report(self) -> None:
        """Write the report; raises ConfigError if there is nothing to tell."""
        from carl.runs.report import build_report

        if not self.dir.seconds:
            raise ConfigError(f"{self.dir.path} holds nothing to report yet; run `carl run {self.config.task}`")
        self._sum_up_seconds()
        build_report(self.dir.path)

    # What the stages share

    def _check_training(self, directory: RunDirectory) -> None:
        """Raise ConfigError, before anything is written, for settings that only the training would notice."""
        train = self.config.train
        if directory.done("train"):
            return
        if train.rllib:
            from carl.training.rllib.algorithms import check

            check(train)
        if train.loggers:
            from carl.training.loggers import module_of

            for logger in train.loggers:
                module_of(logger)

    def _try_task(self, stages: Sequence[str]) -> None:
        """Raise TaskError, before anything is paid, for what recording, training or evaluation would refuse."""
        from carl.runs.trial import Trial
        from carl.sandbox.box import Limits

        verify = self.config.verify
        trial = Trial(
            self.task,
            self.config.seed,
            self.config.train,
            [self._mix(arm) for arm in self.config.arms],
            Limits(deadline_s=verify.deadline_s, memory_mb=verify.memory_mb),
            self.config.collect.max_failed,
        )
        trial.hold(expert=self.config.learns_from_code and not {"collect", "synthesize", "verify"}.isdisjoint(stages))
        if self.config.learns_from_code and "synthesize" in stages:
            code.check_model(self._work)

    @contextmanager
    def _training(self, arm: Arm) -> Iterator[Any]:
        """What an arm is; meanwhile logs are about the program that it looks at, if it does."""
        from carl.training.training import Training

        source = None if arm == "sparse" else code.source(self._work)
        with for_a_while(program=source.id if source else None):
            yield Training(
                task=self.task,
                source=source,
                mix=self._mix(arm),
                run_seed=self.config.seed,
                directory=self.dir / f"training/{arm}",
                train=self.config.train,
                evaluation=self.config.evaluation,
                settings=self.config.model_dump(mode="json"),
            )

    def _check_program(self, arm: Arm) -> None:
        """Raise ConfigError unless the program is the verified one, and the one that ``arm`` was trained with."""
        path, folder, verify = self.dir / PROGRAM, self.dir / f"training/{arm}", f"`carl verify {self.config.task}`"
        program = code.program_of(self._work).id if path.exists() else None
        if not self.dir.done("verify"):
            judged = self.dir.read(VERIFICATION, {}).get("program_id")
            if program and judged and program != judged:
                raise ConfigError(
                    f"{path} is not the program that was verified ({program}, not {judged}): put that one back, or "
                    f"run {verify}, which judges the one that is there"
                )
            raise ConfigError(f"there is no verified program yet; run {verify} first")
        trained = self.dir.read(f"training/{arm}/{SUBJECT}", {}).get("program")
        if trained and trained != program:
            raise ConfigError(
                f"{folder} holds a training with the program {trained}, and {program} is the verified one now: "
                f"delete {folder} to train again, or give another --run-dir"
            )

    @cached_property
    def _evaluator(self) -> Any:
        """The evaluating processes, which start once and serve all arms; none where the driver samples for itself."""
        from carl.training.evaluation import Evaluator

        return self._ray.enter_context(Evaluator() if self.config.train.env_runners else Evaluator(workers=0))

    def _mix(self, arm: Arm) -> Any:
        """What a step of ``arm`` is worth."""
        from carl.rewards.mix import Mix

        reward = self.config.reward if arm == self.config.reward.source else RewardConfig(source=arm)
        return Mix.of(reward)

    def _labelled(self, arm: str) -> Progress:
        return lambda label, done, total=None: self._progress(f"{label} ({arm})", done, total)

    def _sum_up_seconds(self) -> None:
        result = self.dir.read(RESULT)
        if result is not None:
            self.dir.write(RESULT, result | {"seconds": self.dir.seconds})
