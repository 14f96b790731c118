"""The driver: collect, synthesize, verify, train, evaluate, report. Each stage goes on from what it finds on disk."""

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import cached_property
from io import BytesIO
from itertools import islice
from typing import Any

import numpy as np

from carl.artefacts import LIVE, PROGRAM, RESULT, SUBJECT, SYNTHESIS, VERIFICATION, whole, write_bytes, write_text
from carl.cluster.core import CoreLostError, clearly
from carl.cluster.logs import about, for_a_while
from carl.cluster.session import ray_running
from carl.config import EMBEDDED_MODEL, Arm, RewardConfig, RunConfig
from carl.console.progress import Progress, silent, working
from carl.episodes.trajectory import Trajectory, TrajectoryStore
from carl.errors import ConfigError, ProgramError, TaskError, did_you_mean
from carl.program import RewardProgram
from carl.runs.directory import ORDER, RunDirectory
from carl.runs.holding import claimed, held
from carl.runs.result import ARM_NAMES, assemble
from carl.runs.storage import Mirror, Storage
from carl.seeding import Role, seeds_after, seeds_of
from carl.task import get_task
from carl.training.abstains import sentences

STAGES = ORDER

_log = logging.getLogger(__name__)

VERDICTS = 3
"""Programs that may fail on held-out episodes before a run gives up."""


class Pipeline:
    """One run: its task, its directory and its stages.

    Raises TaskError or ConfigError before anything is written if the task is unknown or the directory, or the storage,
    holds another run; and StoreError if the storage cannot be reached.
    """

    def __init__(self, config: RunConfig, progress: Progress = silent) -> None:
        self.task = get_task(config.task)
        self.config = config
        storage = Storage(config.storage) if config.storage else None
        here = storage and storage.folder and storage.folder.resolve() == config.directory.resolve()
        self._storage = None if here else storage
        self._progress = progress
        with held(config.directory), claimed(self._storage, progress):
            if self._storage:
                self._storage.pull(config.directory)
            self.dir = RunDirectory(config, self._check_training)
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
                getattr(self, stage)()

    # The stages, in order

    def collect(self) -> None:
        """Record the expert and random episodes that synthesis is judged on."""
        if self.config.learns_from_code:
            self._recorded()

    def synthesize(self) -> None:
        """Have the VLM write a program that survives the recorded episodes."""
        if not self.config.learns_from_code:
            return
        from carl.synthesis.search import synthesize
        from carl.vlm.client import connect

        experts, randoms = self._recorded()
        shown = islice(experts, self.config.synthesis.pairs)
        pairs = [(np.array(episode.frames[0]), np.array(episode.frames[-1])) for episode in shown]
        self._keep_pairs(pairs)
        with connect(self.config.vlm, self.dir / "synthesis", self._progress) as client:
            result = synthesize(
                self.task.description,
                pairs,
                client,
                self.config.synthesis,
                verify=lambda program: self._failed_held_out(program) or self._verify(program, experts, randoms),
                on_candidate=self._keep_candidate,
                progress=self._progress,
                seed=self.config.seed,
            )
        self._keep_synthesis(result)
        if result.program is None:
            raise ProgramError(
                f"{result.outcome}. {self.dir / 'candidates'} holds what was tried and why it was rejected; try "
                "another --seed, more synthesis.samples, or a larger model"
            )
        write_text(self.dir / PROGRAM, result.program.to_json())

    def verify(self) -> None:
        """Judge the accepted program once more, on episodes that synthesis never saw; if it fails, synthesize on."""
        if not self.config.learns_from_code:
            return
        while (failed := len(list((self.dir / "candidates").glob("held-out-*.json")))) < VERDICTS:
            if failed and (not (self.dir / PROGRAM).exists() or self._failed_held_out(self._program())):
                self.synthesize()
            program = self._program()
            report = self._verify(program, *self._recorded(held_out=failed + 1))
            self.dir.write(VERIFICATION, report.model_dump(mode="json"))
            if report.accepted:
                return
            content = {"program": program.model_dump(mode="json"), "report": report.model_dump(mode="json")}
            self.dir.write(f"candidates/held-out-{failed + 1}-{program.id}.json", content)
            (self.dir / PROGRAM).unlink()
        raise ProgramError(
            f"{VERDICTS} programs survived synthesis and failed on fresh episodes; see {self.dir / 'candidates'}. "
            "Try more episodes (collect.experts, collect.randoms) in another --run-dir"
        )

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

            check(self.task, train)
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
            self._check_model()

    def _check_model(self) -> None:
        """Say before anything is recorded if the embedded model, where it is asked, does not know such pictures."""
        from carl.episodes.collect import first_frame
        from carl.nano.known import check

        if self.config.vlm.model == EMBEDDED_MODEL and self.config.vlm.recording is None:
            check(self.task.name, first_frame(self.task)[0])

    def _recorded(self, held_out: int = 0) -> tuple[Iterable[Trajectory], Iterable[Trajectory]]:
        """Expert and random episodes to search with, or the n-th held-out ones; collected unless they are there.

        Together they may be larger than the memory: each is read when it is looked at.
        """
        from carl.episodes.collect import collect, read_in_parallel

        plan, seed = self.config.collect, self.config.seed
        prefix = f"held-out-{held_out}-" if held_out else ""
        expert, random = (Role.HELD_OUT, Role.HELD_OUT) if held_out else (Role.EXPERT, Role.RANDOM)
        experts = TrajectoryStore(self.dir / f"trajectories/{prefix}expert")
        if not experts.exists():
            count, skip = self._share_of_experts(held_out > 0)
            experts = collect(
                self.task,
                seeds_of(seed, expert, count, 2 * held_out),
                "expert",
                experts.uri,
                progress=self._progress,
                skip=skip,
                spare=seeds_after(seed, expert, count, 2 * held_out),
                max_failed=plan.max_failed,
            )
        randoms = TrajectoryStore(self.dir / f"trajectories/{prefix}random")
        if not randoms.exists():
            longest = max(length for part in experts.manifest.parts for length in part.lengths)
            cut = plan.max_steps or math.ceil(self.task.random_cut * longest)
            seeds = seeds_of(seed, random, plan.randoms, 2 * held_out + 1)
            randoms = collect(self.task, seeds, "random", randoms.uri, cut, progress=self._progress)
        return read_in_parallel(experts), read_in_parallel(randoms)

    def _share_of_experts(self, held_out: bool) -> tuple[int, int]:
        """How many expert episodes, and how many to pass over: recorded demonstrations are halved between both uses."""
        wanted = self.config.collect.experts
        if self.task.demonstrations is None:
            return wanted, 0
        from carl.episodes.collect import Demonstrations

        half = len(Demonstrations.of(self.task, self.config.collect.max_failed).usable) // 2
        if half < self.config.synthesis.pairs:
            raise TaskError(
                f"task {self.task.name!r} has too few demonstrations: half of them judge what the VLM writes, and the "
                f"other half what was accepted; record at least {2 * self.config.synthesis.pairs}, better {2 * wanted}"
            )
        return min(wanted, half), half if held_out else 0

    def _verify(self, program: RewardProgram, experts: Iterable[Trajectory], randoms: Iterable[Trajectory]) -> Any:
        from carl.verification import verify

        return verify(program, experts, randoms, self.config.verify, self._progress)

    def _failed_held_out(self, program: RewardProgram) -> Any:
        """The report that refused ``program`` after synthesis had accepted it; None if there is none."""
        from carl.verification.report import VerificationReport

        for path in (self.dir / "candidates").glob(f"held-out-*-{program.id}.json"):
            with whole(str(path)):
                return VerificationReport.model_validate(self.dir.read(f"candidates/{path.name}")["report"])
        return None

    def _keep_pairs(self, pairs: list[tuple[Any, Any]]) -> None:
        packed = BytesIO()
        np.savez_compressed(packed, initial=np.stack([a for a, _ in pairs]), goal=np.stack([b for _, b in pairs]))
        write_bytes(self.dir / "synthesis/pairs.npz", packed.getvalue())

    def _keep_candidate(self, candidate: Any) -> None:
        report = candidate.report.model_dump(mode="json")
        content = {"program": candidate.program.model_dump(mode="json"), "report": report}
        self.dir.write(f"candidates/{candidate.number:02d}-{candidate.program.id}.json", content)

    def _keep_synthesis(self, result: Any) -> None:
        for index, rejection in enumerate(result.rejections, 1):
            self.dir.write(f"candidates/answer-{index:02d}.json", {"rejected": rejection.reason, **asdict(rejection)})
        usage = {"model": self.config.vlm.model, **result.usage.model_dump(), "wanted": result.wanted}
        self.dir.write(SYNTHESIS, {"candidates": len(result.candidates), "stopped": result.stopped, "usage": usage})

    def _program(self) -> RewardProgram:
        if not (self.dir / PROGRAM).exists():
            raise ConfigError(f"{self.dir.path} holds no program yet; run `carl synthesize {self.config.task}` first")
        program = RewardProgram.load(self.dir / PROGRAM)
        about(program=program.id)
        return program

    def _source(self) -> Any:
        from carl.rewards.program import ProgramReward

        return ProgramReward.of(self._program(), self.config.verify, cache=self.config.reward.cache)

    @contextmanager
    def _training(self, arm: Arm) -> Iterator[Any]:
        """What an arm is; meanwhile logs are about the program that it looks at, if it does."""
        from carl.training.train import Training

        source = None if arm == "sparse" else self._source()
        with for_a_while(program=source.id if source else None):
            yield Training(
                task=self.task,
                source=source,
                mix=self._mix(arm),
                run_seed=self.config.seed,
                directory=self.dir / f"training/{arm}",
                train=self.config.train,
                evaluation=self.config.evaluation,
                told=self.config.model_dump(mode="json"),
            )

    def _check_program(self, arm: Arm) -> None:
        """Raise ConfigError unless the program is the verified one, and the one that ``arm`` was trained with."""
        path, folder, verify = self.dir / PROGRAM, self.dir / f"training/{arm}", f"`carl verify {self.config.task}`"
        program = self._program().id if path.exists() else None
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
        from carl.rewards.vector import Mix

        reward = self.config.reward if arm == self.config.reward.source else RewardConfig(source=arm)
        return Mix.of(reward, self.task)

    def _labelled(self, arm: str) -> Progress:
        return lambda label, done, total=None: self._progress(f"{label} ({arm})", done, total)

    def _sum_up_seconds(self) -> None:
        result = self.dir.read(RESULT)
        if result is not None:
            self.dir.write(RESULT, result | {"seconds": self.dir.seconds})
