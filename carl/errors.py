"""The errors carl raises. Each says whose fault it was; its message says what happened and what to do."""


class CarlError(Exception):
    """Base of all errors that a user can act on; the command line prints its message without a traceback."""


class ConfigError(CarlError):
    """A setting is wrong, or contradicts what the run directory already holds."""


class TaskError(CarlError):
    """A task is unknown, or its environment or expert does not do what a Task promises."""


class StoreError(CarlError):
    """A trajectory store cannot be read or written; the message names the file."""


class VlmError(CarlError):
    """The vision-language model or its server failed: down, slow, refusing, or answering something unusable."""


class ProgramError(CarlError):
    """A reward program is malformed, or the static policy refuses it."""


class BoxError(CarlError):
    """The process that runs generated code could not be started or kept alive."""


class ResourceError(CarlError):
    """The machine or the cluster lacks what the run asks for."""


def missing(error: ModuleNotFoundError) -> str:
    """What to say of a package that is not installed."""
    return f"carl needs the package {error.name}: pip install code-as-reward, in the cluster's image too"
