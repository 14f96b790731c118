"""ServingConfig: the application's arguments, from YAML or ``carl serve``. Imports neither torch nor ray."""

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeFloat, model_validator

from carl.config import EMBEDDED_MODEL, named_from_home


class Autoscaling(BaseModel):
    """The number of replicas. Names and meanings are those of Ray Serve's AutoscalingConfig, the defaults carl's.

    With the defaults an idle model is removed within a minute: Serve counts requests every 10 s, averages over 12 s,
    and then waits ``downscale_to_zero_delay_s``. The server starts with one replica whatever ``min_replicas`` is, and
    removes it like any other; so a model that cannot be loaded fails at the start, unless that takes longer than the
    delay.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_replicas: int = Field(default=0, ge=0, description="Fewest replicas; 0: none while nobody asks.")
    max_replicas: int = Field(default=1, ge=1, description="Most replicas.")
    target_ongoing_requests: float | None = Field(
        default=None, gt=0, description="Requests per replica above which there should be more; none: max_batch_size."
    )
    upscale_delay_s: float = Field(default=10, ge=0, description="Seconds before a second replica; the first: none.")
    downscale_delay_s: float = Field(default=120, ge=0, description="Seconds before there are fewer, but not none.")
    downscale_to_zero_delay_s: float = Field(default=25, ge=0, description="Seconds before the last one goes.")

    @model_validator(mode="after")
    def min_is_not_above_max(self) -> Self:
        """Raise ValueError if ``min_replicas`` is above ``max_replicas``."""
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas ({self.min_replicas}) is above max_replicas ({self.max_replicas})")
        return self


class ServingConfig(BaseModel):
    """Arguments of the application."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, AfterValidator(named_from_home)] = Field(
        default=EMBEDDED_MODEL, description="The embedded model, a Hugging Face name or a folder."
    )
    token_env: str | None = Field(default=None, description="Environment variable with the bearer token; none: open.")
    clients_env: str | None = Field(
        default=None, description="Instead: variable with several clients' tokens and budgets, as JSON (clients.py)."
    )
    max_batch_size: int = Field(default=16, ge=1, description="Most answers generated together.")
    batch_wait_s: float = Field(default=0.02, ge=0, description="How long a batch waits for company, in seconds.")
    max_queued_requests: int = Field(
        default=64, ge=1, description="Requests that may wait for a replica; one more gets status 429."
    )
    default_max_tokens: int = Field(default=1024, ge=1, description="Longest answer unless a request sets it.")
    max_body_mb: float = Field(default=32, gt=0, description="Largest request, in MiB.")
    max_images: int = Field(default=64, ge=1, description="Most pictures of a request.")
    max_megapixels: float = Field(default=64, gt=0, description="Most pixels of all its pictures, in 2**20.")
    body_timeout_s: float = Field(default=60, gt=0, description="Seconds that a request may take to arrive.")
    max_requests_per_client: int = Field(
        default=64, ge=1, description="Requests of one client under way at once; without tokens, of one address."
    )
    threads: int | None = Field(
        default=None, ge=1, description="Cores for torch; none: all of them, but one for the embedded model."
    )
    num_cpus: float = Field(default=1, ge=0, description="CPUs reserved for each replica.")
    num_gpus: float = Field(default=0, ge=0, description="GPUs reserved for each replica; accelerate uses them all.")
    resources: dict[str, NonNegativeFloat] = Field(default={}, description="Custom Ray resources, likewise.")
    replicas: int = Field(default=1, ge=1, description="Copies of the model.")
    autoscaling: Autoscaling | None = Field(default=None, description="Instead: as many copies as requests need.")

    @model_validator(mode="after")
    def one_way_of_each(self) -> Self:
        """Raise ValueError for both kinds of tokens, or for both kinds of scaling."""
        if self.token_env and self.clients_env:
            raise ValueError("token_env and clients_env exclude each other: the token would be a client without a name")
        if self.autoscaling and self.replicas != 1:
            raise ValueError("replicas and autoscaling exclude each other; set autoscaling.max_replicas")
        return self

    @property
    def ongoing_requests(self) -> int:
        """Requests that a replica takes at once: two batches, one under way and one that fills."""
        return 2 * self.max_batch_size

    @property
    def capacity(self) -> int:
        """Requests under way or waiting at once, all replicas together."""
        replicas = self.autoscaling.max_replicas if self.autoscaling else self.replicas
        return replicas * self.ongoing_requests + self.max_queued_requests
