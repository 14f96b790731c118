"""The watch over a training that a program pays: what it is told of the run."""

from typing import TYPE_CHECKING, Any

from carl.artefacts import TRAJECTORIES, of_arm
from carl.episodes.trajectory import TrajectoryStore
from carl.methods.arms import main_arm, mix_of
from carl.methods.method import Work
from carl.verification.rule import Evidence

if TYPE_CHECKING:
    from carl.training.watch import Watch


def watch(work: Work[Any]) -> "Watch":
    """The watch over the run's own arm."""
    from carl.methods.repairing import Repairs
    from carl.training.answers import Watching
    from carl.training.filmgate import BESIDE
    from carl.training.watch import Watch

    config = work.config
    arm = main_arm(config)
    stores = {
        kind: store for kind in BESIDE if (store := TrajectoryStore(work.directory / TRAJECTORIES / kind)).exists()
    }
    return Watch(
        Watching(
            folder=work.directory / of_arm(arm.name, ""),
            env_steps=config.train.env_steps,
            env_weight=mix_of(config, arm).env,
            longest=_longest(stores.get(Evidence.EXPERTS)),
            settings=config.watch,
            verify=config.verify,
            repairs=Repairs(work, arm.name),
            recorded=stores,
        )
    )


def _longest(experts: TrajectoryStore | None) -> int | None:
    """Steps of the longest expert episode; None without recorded experts."""
    return max(length for part in experts.manifest.parts for length in part.lengths) if experts else None
