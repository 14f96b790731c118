"""What a method of reward design is made of: a configuration, stages before training, a source, perhaps a teacher."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from carl.config import RunConfig
from carl.console.progress import Progress, silent
from carl.errors import ConfigError, command
from carl.task import Frame, Task

if TYPE_CHECKING:
    from gymnasium.spaces import Box

    from carl.episodes.trajectory import Trajectory
    from carl.rewards.source import Need, RewardSource
    from carl.training.evaluation import Evaluator
    from carl.training.teacher import Teacher
    from carl.verification.rule import Evidence

Config = TypeVar("Config", bound=RunConfig)
"""The configuration of a method: RunConfig with the method's own sections."""


def _evaluator() -> "Evaluator":
    from carl.training.evaluation import Evaluator

    return Evaluator(workers=0)


@dataclass(frozen=True)
class Work(Generic[Config]):
    """What a stage works with.

    Attributes:
        task, config: the run's.
        directory: the run's, where stages leave artefacts and find those of the stages before.
        progress: receives the progress of the stage.
        evaluator: gives the processes that evaluate policies; they start at the first call and serve all stages.
        recordings: the directory of the run whose recorded episodes count, where that is another.
        beside: further episodes by their kind: one part to search with, the others to judge by.
    """

    task: Task
    config: Config
    directory: Path
    progress: Progress = silent
    evaluator: "Callable[[], Evaluator]" = _evaluator
    recordings: Path | None = None
    beside: "Mapping[Evidence, Iterable[Trajectory]]" = field(default_factory=dict)

    def command(self, name: str) -> str:
        """``carl name`` for this very run, as errors advise it: the run's directory stands for its task."""
        return command(name, self.directory)


def _nothing(_: Any) -> None:
    """No check, and nothing to show."""


@dataclass(frozen=True)
class Stage(Generic[Config]):
    """A stage of a run.

    Attributes:
        name: what ``stages.json`` and the command line call it.
        run: does it, and goes on from what an earlier attempt left in the directory. Ray runs, unless ``alone``.
        made: a short text that changes with the artefacts in a directory; None if they are not there. Raises CarlError
            where a file is damaged.
        settles: sections of the configuration, or single settings as ``section.field``, that the artefacts follow from;
            they cannot change once it is done.
        help: one sentence for the command line.
        check: raises CarlError, before Ray starts and anything is paid, for what ``run`` would refuse.
        max_failed: if the stage plays the task's expert, gives the largest share of its episodes that may fail. The
            expert is then tried before Ray starts.
        alone: whether it needs no Ray, and is run again each time.
    """

    name: str
    run: Callable[[Work[Config]], None]
    made: Callable[[Path, Config], str | None]
    settles: tuple[str, ...] = ()
    help: str = ""
    check: Callable[[Work[Config]], None] = _nothing
    max_failed: Callable[[Config], float] | None = None
    alone: bool = False


@dataclass(frozen=True)
class Method(Generic[Config]):
    """A method of reward design. A run does its stages, then trains on its source, evaluates and reports.

    Attributes:
        name: what ``reward.method`` calls it, and its folder under ``training/``.
        words: what its policy is trained on, for tables and sentences: "code reward".
        config: the class of its configuration. Importing it imports neither torch nor ray.
        stages: what comes before training.
        source: the run's reward, from what the stages left; raises CarlError if that is missing. None: the policy is
            paid by the environment alone.
        pays: whether the source pays the policy, together with ``reward.env_reward_weight`` of the environment's own
            reward. If not, the environment pays, and the policy sees what the source shows.
        shows: what the source of a configuration will show to the policy: a Box of one dimension and of floats.
        noun: what is behind the source, for errors: "program".
        needs: what the source will look at. Where it needs frames, the task's camera is tried before Ray starts.
        check_frames: raises TaskError if no source of this method could judge frames ``uint8[N, H, W, 3]`` of a task.
        teacher: what replaces the source while the method's own arm trains; its first source is the run's.
        found: what the method adds to ``result.json``, read from a run directory.
    """

    name: str
    words: str
    config: type[Config]
    stages: tuple[Stage[Config], ...] = ()
    source: "Callable[[Work[Config]], RewardSource] | None" = None
    pays: bool = True
    shows: "Callable[[Config], Box | None]" = _nothing
    noun: str = "source"
    needs: "frozenset[Need]" = frozenset()
    check_frames: Callable[[Task, Config, Frame], None] | None = None
    teacher: "Callable[[Work[Config]], Teacher] | None" = None
    found: Callable[[Path], Mapping[str, Any]] = field(default=lambda _: {})

    def __post_init__(self) -> None:
        if self.pays and self.source is None:
            raise ConfigError(f"the method {self.name!r} has no source to pay by: give it one, or pays=False")
