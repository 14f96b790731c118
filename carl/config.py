"""The settings of a run, with defaults that work on a laptop. Imports neither torch nor ray."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    ValidationInfo,
    field_validator,
    model_validator,
)

from carl.statistics import trials_to_exclude

EMBEDDED_MODEL = "carl-nano"


def from_home(path: Path) -> Path:
    """``path`` with a leading ``~`` or ``~user`` in full."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"no user is known by the name of {path.parts[0]}") from None


def named_from_home(name: str) -> str:
    """``name``, as of a model, which may be that of a folder."""
    return str(from_home(Path(name))) if name.startswith("~") else name


def _storage(uri: str) -> str:
    if urlsplit(uri).password:
        raise ValueError("a URI is written down in many places: give its key by environment variables")
    path = uri.removeprefix("file://")
    return from_home(Path(path)).absolute().as_uri() if path.startswith("~") else uri


def _server(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} should be a URL such as http://localhost:8000/v1")
    return url


LocalPath = Annotated[Path, AfterValidator(from_home)]
StorageUri = Annotated[str, AfterValidator(_storage)]
"""A pyarrow.fs URI, or a folder of this machine that begins with ``~``."""


Share = Annotated[float, Field(ge=0, le=1)]
Kind = Literal["random", "resting", "mixed", "cut", "policy"]
"""Kinds of episodes of which some do not solve the task."""


class Section(BaseModel):
    """Settings that belong together. None means a field's default."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def none_is_the_default(cls, values: Any) -> Any:
        """Remove fields that are None, so that they get their defaults."""
        if not isinstance(values, dict):
            return values
        return {key: value for key, value in values.items() if value is not None or key not in cls.model_fields}

    @field_validator("*", mode="before")
    @classmethod
    def a_switch_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Raise ValueError for a bool where a number belongs, which pydantic would take for 0 or 1."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and {int, float} & {kind, *get_args(kind)}:
            raise ValueError(f"{value} should be a number")
        return value


class VlmConfig(Section):
    """The vision-language model: its server, limits of time, and sampling."""

    model: Annotated[str, AfterValidator(named_from_home)] = Field(
        default=EMBEDDED_MODEL, description="Model name at the server; a Hugging Face name or a folder."
    )
    base_url: Annotated[str, AfterValidator(_server)] | None = Field(
        default=None, description="OpenAI-compatible server; none: serve the model here while synthesis lasts."
    )
    api_key_env: str = Field(
        default="CARL_VLM_API_KEY", description="Environment variable that holds the bearer token."
    )
    timeout_s: float = Field(default=120.0, gt=0, description="Seconds after which a whole answer has to be there.")
    max_retries: int = Field(default=2, ge=0, description="Times a failed request is sent again.")
    patience_s: float = Field(
        default=300.0,
        ge=0,
        description="Seconds to go on asking a server that is full or not up yet, pauses included.",
    )
    temperature: float = Field(default=0.7, ge=0, description="Sampling temperature.")
    max_tokens: int = Field(default=4096, gt=0, description="Longest answer, in tokens.")
    min_frame_px: int = Field(
        default=0, ge=0, description="Frames smaller than this are enlarged by a whole factor before they are sent."
    )
    resources: dict[str, NonNegativeFloat] | None = Field(
        default=None, description="What Ray reserves for a model served here, as {GPU: 1}; none: a GPU if one is free."
    )
    recording: LocalPath | None = Field(default=None, description="Replay this recording of exchanges; ask no model.")


def _listed(value: Any) -> Any:
    """One name, or several with commas, as a list."""
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


Proposers = Literal["pool", "tune", "step", "model", "induction"]


class SynthesisConfig(Section):
    """The search for a program: what the model is shown, and the budget."""

    proposers: Annotated[tuple[Proposers, ...], BeforeValidator(_listed)] = Field(
        default=(),
        description="What brings programs, cheapest first; none: by what there is. pool: the best functions of all "
        "answers; tune: other numbers in them; step: induction of one that failed; model; induction: no model at all.",
    )
    pairs: int = Field(default=2, ge=1, le=8, description="Expert episodes whose initial and goal frames are shown.")
    pictures: int = Field(
        default=16,
        ge=2,
        description="Most pictures of a request: initial and goal frames always, then failing frames, near misses, ...",
    )
    samples: int = Field(default=8, ge=1, description="Answers sampled per request.")
    max_requests: int = Field(default=10, ge=1, description="VLM requests per run, repairs included.")
    max_tokens: int | None = Field(
        default=None, ge=1, description="Tokens of all requests and answers; the request that exceeds them is the last."
    )
    max_seconds: float | None = Field(
        default=None, gt=0, description="Seconds that the search may take, judging included."
    )
    max_money: float | None = Field(default=None, gt=0, description="Money for all requests, at the two prices.")
    price_in: float = Field(default=0.0, ge=0, description="Price of a million tokens of requests.")
    price_out: float = Field(default=0.0, ge=0, description="Price of a million tokens of answers.")

    @model_validator(mode="after")
    def somebody_begins(self) -> Self:
        """Raise ValueError for proposers that all wait for what another one brings."""
        if self.proposers and not {"model", "induction"} & set(self.proposers):
            raise ValueError(f"proposers={','.join(self.proposers)} only go on from programs: add model or induction")
        return self

    @model_validator(mode="after")
    def money_needs_prices(self) -> Self:
        """Raise ValueError for a limit in money where tokens cost nothing."""
        if self.max_money is not None and not (self.price_in or self.price_out):
            raise ValueError("max_money is a limit only with prices: set price_in and price_out")
        return self


class InductionConfig(Section):
    """The search for a program without a model."""

    programs: int = Field(default=200, ge=1, le=200, description="Programs that the gate may be asked about.")
    frames: int = Field(default=12_000, ge=500, description="Frames that are measured; memory and time grow with them.")


class CollectConfig(Section):
    """The episodes that programs are judged on."""

    excludes: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Largest share of seeds in which a fault may hide, at 95 %; the numbers of episodes follow.",
    )
    experts: int | None = Field(default=None, ge=2, description="Expert episodes; none: as many as excludes asks for.")
    randoms: int | None = Field(
        default=None, ge=1, description="Episodes of random play; none: as many, and verify.min_randoms at least."
    )
    others: int | None = Field(
        default=None,
        ge=0,
        description="Episodes each of a resting agent, half-trained play and cut expert play; none: as experts.",
    )
    random_cut: float = Field(
        default=4.0,
        gt=0,
        description="Random play is cut at this many times the longest expert episode: long play solves small rooms.",
    )
    max_steps: int | None = Field(default=None, ge=1, description="Cut of random play in steps; none: by random_cut.")
    max_failed: float = Field(
        default=0.5, ge=0, lt=1, description="Largest share of expert episodes that may fail; they are passed over."
    )

    @property
    def expert_episodes(self) -> int:
        """How many expert episodes are recorded."""
        return self.experts or max(2, trials_to_exclude(self.excludes))

    @property
    def random_episodes(self) -> int:
        """How many episodes of random play are recorded, whatever verification needs."""
        return self.randoms or trials_to_exclude(self.excludes)

    @property
    def other_episodes(self) -> int:
        """How many episodes of each other kind are recorded."""
        return self.expert_episodes if self.others is None else self.others


class VerifyConfig(Section):
    """The gate's limits, and those of the process that runs programs."""

    max_random_completion: float = Field(
        default=0.10,
        ge=0,
        le=1,
        description="Largest share of random episodes that may complete every sub-task before they solve the task.",
    )
    min_randoms: int = Field(default=200, ge=1, description="Fewest random episodes on which that share is judged.")
    max_early: float = Field(
        default=0.0, ge=0, le=1, description="Largest share of expert episodes that may be done before they are solved."
    )
    max_unsolved: Share | dict[Kind, Share] = Field(
        default=0.0,
        description="Largest share of the episodes of a kind that may complete every sub-task and not solve the task; "
        "one for all kinds, or by kind as {mixed: 0.2}, and none of the others.",
    )
    max_undone: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Largest share of episodes in which a sub-task may be undone by moving on; 1 where nothing lasts.",
    )
    max_undone_by_experts: float | None = Field(
        default=None, ge=0, le=1, description="The same share of what experts undo, where the way is one of places."
    )
    max_part: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="Largest share of the return that random play may earn in part on what it never gets done.",
    )
    camera_varies: bool = Field(
        default=False, description="Judge frames that look a little different as well; by default what the Task says."
    )
    idle: tuple[int, ...] = Field(
        default=(), description="Actions that change nothing but the agent's own view; by default what the Task says."
    )
    max_frame_ms: float = Field(default=10.0, gt=0, description="Milliseconds that a judgement of one frame may take.")
    min_experts: int = Field(default=10, ge=1, description="Fewest expert episodes on which a program is accepted.")
    max_contradicted: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Largest share of solved episodes that may end in a frame in which the task goes on unsolved.",
    )
    deadline_s: float = Field(
        default=1.0,
        gt=0,
        description="Seconds of processor time that a program may take for one frame; ten times as many on the wall.",
    )
    memory_mb: int = Field(default=1024, gt=0, description="Address space of the process that runs a program, in MiB.")
    require_approval: bool = Field(
        default=False, description="Train on a program only once a person approved it: `carl program approve`."
    )

    def unsolved(self, kind: str) -> float:
        """``max_unsolved`` for episodes of ``kind``."""
        if not isinstance(self.max_unsolved, dict):
            return self.max_unsolved
        return next((share for name, share in self.max_unsolved.items() if name == kind), 0.0)


class WatchConfig(Section):
    """The watch over a training that a program pays."""

    every: int = Field(
        default=20,
        ge=0,
        description="Iterations between two films of the policy for the gate, the first sooner; 0: no watch.",
    )
    episodes: int = Field(default=8, ge=1, le=64, description="Episodes of each film.")
    repair: bool = Field(
        default=False, description="After an alarm, search for another program while training goes on."
    )
    anneal: bool = Field(
        default=True,
        description="While an alarm stands, shift the weight from the program to the environment's own reward.",
    )


class RewardConfig(Section):
    """The reward of the policy: the method, and what is mixed in or shown."""

    method: str = Field(
        default="code",
        description="What pays the policy. code: the verified program; sparse: the environment's own reward "
        "(a baseline); or a method of an installed package.",
    )
    progress_in_observation: bool = Field(default=True, description="Show the policy what has been paid.")
    env_reward_weight: float = Field(
        default=0.0, ge=0, description="Weight of the environment's own reward beside the method's."
    )
    cache: bool = Field(default=True, description="Never judge the same frame of an episode twice.")

    @model_validator(mode="before")
    @classmethod
    def source_is_the_older_name_of_method(cls, values: Any) -> Any:
        """Take ``source``, the older name, as ``method``."""
        if not isinstance(values, dict) or "source" not in values:
            return values
        if values.get("method") not in (None, values["source"]):
            raise ValueError("source is the older name of method: give one of them")
        return {key: value for key, value in values.items() if key != "source"} | {"method": values["source"]}


Logger = Literal["tensorboard", "wandb", "mlflow"]


def _without_none(value: Any) -> Any:
    return {key: one for key, one in value.items() if one is not None} if isinstance(value, dict) else value


class TrainConfig(Section):
    """The training: algorithm, processes and their resources, checkpoints, loggers."""

    algorithm: Literal["ppo", "appo", "sac"] = Field(
        default="ppo", description="appo: PPO that waits for no env runner, for many; sac: for bounded numbers."
    )
    env_steps: int = Field(default=200_000, ge=1, description="Environment steps to train for.")
    env_runners: int = Field(default=2, ge=0, description="Processes that sample; 0: the driver does, and evaluates.")
    envs_per_runner: int = Field(default=32, ge=1, description="Environments in each of them.")
    cpus_per_runner: float = Field(default=1, ge=0, description="CPUs of each of them, where they are processes.")
    gpus_per_runner: float = Field(default=0, ge=0, description="GPUs of each of them; 0.25 is a quarter of one.")
    learners: int = Field(default=0, ge=0, description="Processes that learn; 0: in the driver.")
    gpus_per_learner: float = Field(default=0, ge=0, description="GPUs of each of them; 0: it learns on CPUs.")
    rllib: Annotated[dict[str, dict[str, Any]], BeforeValidator(_without_none)] = Field(
        default={},
        description="RLlib's own settings, by AlgorithmConfig's method: {training: {lr: 3e-4}}. null is a value of "
        "theirs; {} and a method that is null leave all to carl.",
    )
    stop_at_success: float | None = Field(
        default=None, ge=0, le=1, description="Stop early once this success rate is reached on selection episodes."
    )
    checkpoint_every: int = Field(default=10, ge=1, description="Training iterations between checkpoints.")
    evaluate_every: int = Field(
        default=5, ge=1, description="Training iterations between points of the learning curve."
    )
    baselines: bool = Field(default=True, description="Train on the sparse reward as well, for the comparison.")
    loggers: Annotated[tuple[Logger, ...], BeforeValidator(_listed)] = Field(
        default=(), description="Trackers that get the figures of each iteration."
    )

    @model_validator(mode="after")
    def appo_waits_for_no_runner(self) -> Self:
        """Raise ValueError for APPO without env runners."""
        if self.algorithm == "appo" and not self.env_runners:
            raise ValueError("algorithm=appo samples in other processes: set env_runners to 1 or more, or use ppo")
        return self


class EvaluationConfig(Section):
    """The episodes of evaluations."""

    episodes: int = Field(default=200, ge=1, description="Final episodes, on seeds that nothing else uses.")
    curve_episodes: int = Field(default=32, ge=1, description="Episodes per point of the learning curve.")


class RunConfig(Section):
    """One run: a task, a seed, and what differs from the defaults. Methods of reward design add sections."""

    task: str = Field(description="Name of a registered task, or module:attribute.")
    seed: int = Field(default=0, ge=0, description="All other seeds are spawned from it.")
    run_dir: LocalPath | None = Field(default=None, description="Where artefacts go; none: runs/<task>-<seed>.")
    storage: StorageUri | None = Field(
        default=None,
        description="pyarrow.fs URI that they are copied to, and that a run which is not here goes on from.",
    )
    reward: RewardConfig = RewardConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @property
    def directory(self) -> Path:
        """The run directory: ``run_dir``, else ``runs/<task>-<seed>``."""
        return self.run_dir or Path("runs") / self._name

    @property
    def id(self) -> str:
        """Names the run in logs and metrics: task and seed, and its directory's name if that is another."""
        name = self.directory.resolve().name
        return self._name if name == self._name else f"{self._name}/{name}"

    @property
    def _name(self) -> str:
        return f"{self.task.replace(':', '.')}-{self.seed}"


def below(uri: str, name: str) -> str:
    """The URI of ``name`` in the folder at ``uri``, whose query stays."""
    parts = urlsplit(uri)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{name}").geturl()
