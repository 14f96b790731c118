"""The driver: the stages of a run's method, then train, evaluate and report. Each goes on from what is on disk."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from carl.artefacts import RESULT, of_arm
from carl.cluster.core import CoreLostError, clearly
from carl.cluster.logs import about
from carl.cluster.session import ray_running
from carl.config import RunConfig
from carl.console.progress import Progress, silent, working
from carl.errors import ConfigError, did_you_mean
from carl.methods import Stage, Work, method_of
from carl.methods.arms import Arm, arms_of, mix_of
from carl.runs.directory import RunDirectory
from carl.runs.holding import claimed, held
from carl.runs.resolve import by_default, resolved
from carl.runs.stages import ORDER, known, stages_of
from carl.runs.storage import Mirror, Storage
from carl.tasks import get_task
from carl.training.abstains import sentences
from carl.training.watched import doubtful, summed
from carl.training.watched import sentences as of_watch

if TYPE_CHECKING:
    from carl.training.evaluation import Evaluator

_log = logging.getLogger(__name__)


class Pipeline:
    """One run: its task, its method, its directory and its stages.

    Raises TaskError or ConfigError before anything is written if the task or the method is unknown or the directory, or
    the storage, holds another run; and StoreError if the storage cannot be reached.
    """

    def __init__(self, config: RunConfig, progress: Progress = silent) -> None:
        self.task = get_task(config.task)
        self.config = config = resolved(config, self.task)
        self.method = method_of(config.reward.method)
        storage = Storage(config.storage) if config.storage else None
        here = storage and storage.folder and storage.folder.resolve() == config.directory.resolve()
        self._storage = None if here else storage
        self._progress = progress
        self._examiner: Evaluator | None = None
        with held(config.directory), claimed(self._storage, progress):
            if self._storage:
                self._storage.pull(config.directory)
            self.dir = RunDirectory(config, self._check_training, by_default(self.task, type(config)))
        about(run=config.id, program=None)

    @property
    def work(self) -> Work[Any]:
        """What stages work with."""
        return Work(self.task, self.config, self.dir.path, self._progress, self._evaluator)

    def run(self, names: Sequence[str] | None = None) -> dict[str, Any] | None:
        """Run those of the stages called ``names``, of all by default, that are not done yet; returns the run's result
        if there is one by then. A stage of another method has nothing to do."""
        for name in names or ():
            if name not in known(self.config):
                raise ConfigError(f"there is no stage {name!r}{did_you_mean(name, ORDER)}")
        stages = [stage for stage in stages_of(self.config) if names is None or stage.name in names]
        with ExitStack() as stack:
            stack.enter_context(held(self.dir.path))
            stack.enter_context(claimed(self._storage, self._progress))
            if self._storage:
                stack.enter_context(Mirror(self._storage, self.dir.path))
            self._ray = stack.enter_context(ExitStack())
            left = [stage for stage in stages if not stage.alone and not self.dir.done(stage.name)]
            if left:
                with self.dir.attempt(left[0].name), working(self._progress, "trying the task"):
                    self._try_task(left)
            for stage in stages:
                if stage.alone or not self._done(stage):
                    with self.dir.attempt(stage.name):
                        self._do(stage)
        return self.dir.read(RESULT)  # type: ignore[no-any-return]  # JSON

    def _done(self, stage: Stage[Any]) -> bool:
        """Whether nothing is left to do; the source that was trained on has to be what the method's stages made."""
        return self.dir.done(stage.name) and (stage in self.method.stages or self._made())

    def _made(self) -> bool:
        """Whether what the source is made of is there."""
        return all(self.dir.done(stage.name) for stage in self.method.stages[-1:])

    @property
    def doubts(self) -> list[str]:
        """Why not to trust what was trained: a sentence for each training in which too many frames could not be judged,
        and what its watch has to say if an alarm stands or the program was dropped."""
        found: list[str] = []
        for arm in arms_of(self.config):
            found += sentences({arm.short: self.dir.run.live(arm.name)})
            watched = summed(self.dir.run.looks(arm.name))
            found += of_watch(arm.short, watched) if doubtful(watched) else ()
        return found

    def _do(self, stage: Stage[Any]) -> None:
        """Run a stage; where Ray's core is lost meanwhile, go on with another one, once."""
        try:
            self._try(stage)
        except CoreLostError as error:
            _log.warning("%s. The stage starts again with another Ray", error)
            self._ray.close()
            self._examiner = None  # its processes are gone
            self._try(stage)

    def _try(self, stage: Stage[Any]) -> None:
        with clearly():
            if not stage.alone:
                for arm in arms_of(self.config) if stage not in self.method.stages else ():
                    self._check_source(arm)
                self._ray.enter_context(ray_running(self._progress))
            with self.dir.stage(stage.name):
                stage.run(self.work)

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

    def _try_task(self, stages: Sequence[Stage[Any]]) -> None:
        """Raise CarlError, before anything is paid, for what recording, training or evaluation would refuse."""
        from carl.rewards.source import Need
        from carl.runs.trial import Trial

        method, config = self.method, self.config
        plays = [stage.max_failed(config) for stage in stages if stage.max_failed]
        trial = Trial(
            self.task,
            config.seed,
            config.train,
            [mix_of(config, arm) for arm in arms_of(config)],
            films=Need.FRAMES in method.needs,
            judge=partial(method.check_frames, self.task, config) if method.check_frames else None,
            max_failed=min(plays, default=0.0),
        )
        trial.hold(expert=bool(plays))
        for stage in stages:
            stage.check(self.work)

    def _check_source(self, arm: Arm) -> None:
        """Raise ConfigError unless the source that ``arm`` looks at is there, and is the one it was trained with."""
        if not (arm.looks and self.method.source):
            return
        source, noun = self.method.source(self.work).id, self.method.noun
        folder = self.dir / of_arm(arm.name, "")
        if not self._made():
            *_, last = self.method.stages
            raise ConfigError(f"the stage {last.name} is not done; run {self.work.command('run')}, which goes on there")
        trained = self.dir.run.subject(arm.name).get("program")
        if trained and trained != source:
            raise ConfigError(
                f"{folder} holds a training with the {noun} {trained}, and the {noun} is {source} now: "
                f"delete {folder} to train again, or give another --run-dir"
            )

    def _evaluator(self) -> "Evaluator":
        """The evaluating processes, which start once and serve all arms; none where the driver samples for itself."""
        from carl.training.evaluation import Evaluator

        if self._examiner is None:
            examiner = Evaluator() if self.config.train.env_runners else Evaluator(workers=0)
            self._examiner = self._ray.enter_context(examiner)
        return self._examiner
