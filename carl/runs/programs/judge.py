"""Programs by hand before the gate: the verdict of record for that of a run, and a trial of any program."""

from carl.artefacts import VERIFICATION
from carl.config import RunConfig
from carl.console.progress import Progress
from carl.errors import ConfigError
from carl.methods.code import CODE, CodeConfig, tried_out
from carl.program import RewardProgram
from carl.runs.directory import read_config
from carl.runs.holding import held
from carl.runs.pipeline import Pipeline
from carl.runs.programs.located import Located
from carl.verification import VerificationReport


def of_record(found: Located, progress: Progress) -> VerificationReport:
    """The verdict on the program of a run on held-out episodes, made unless it is there.

    Raises ConfigError for a program that is not a run's, and ProgramError if the gate refuses it.
    """
    if found.run is None:
        raise ConfigError(f"{found.where} is not the program of a run: say on whose episodes, with --run or --task")
    pipeline = Pipeline(read_config(found.run), progress)
    pipeline.run(("collect", "verify"))
    return VerificationReport.load(pipeline.dir / VERIFICATION)


def on_episodes_of(config: RunConfig, program: RewardProgram, progress: Progress) -> VerificationReport:
    """What the gate makes of ``program`` on the episodes that a run's candidates are judged on; they are recorded
    unless they are there. Raises ConfigError if the run's method judges no programs."""
    pipeline = Pipeline(config, progress)
    if not isinstance(pipeline.config, CodeConfig):
        raise ConfigError(f"{pipeline.dir.path} is a run of {pipeline.method.words}, which judges no programs")
    pipeline.run((CODE.stages[0].name,))
    with held(pipeline.dir.path):
        return tried_out(pipeline.work, program)
