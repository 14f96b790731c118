"""Programs that a VLM writes: decompose, write, and repair what the gate's evidence speaks against."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from carl.config import SynthesisConfig
from carl.console.progress import Progress, silent
from carl.synthesis.author import Author
from carl.synthesis.drafts import Drafts
from carl.synthesis.shown import Examples
from carl.synthesis.tried import BudgetSpentError, Proposal, Tried
from carl.vlm.client import VlmClient
from carl.vlm.prompts import PromptFile


@dataclass(frozen=True, eq=False)
class VlmProposer:
    """Asks a VLM for plans, for a program for each of their sub-tasks, and for repairs.

    Attributes:
        examples: what is shown of recorded episodes.
        seed: of the search: every request has its own seed, so that the same search asks the same again.
        files: other prompts than this package's, by name.
    """

    description: str
    examples: Examples
    client: VlmClient
    config: SynthesisConfig
    seed: int = 0
    progress: Progress = silent
    files: Mapping[str, PromptFile] | None = None
    name: str = "model"
    exhausted: str = "the model names no further plan that could be tried"

    def propose(self, tried: Tried) -> Iterator[Proposal | None]:
        """Programs, what fails being replaced where the report blames it.

        Answers that cannot be used are noted in ``tried``, never raised. Raises VlmError if the model fails; what it
        answered until then is in the client's recording, so that the next search with the same arguments goes on from
        there. Where the budget is spent, what was sampled already is tried in other combinations first.
        """
        asked = self.client, self.config, self.seed, self.progress, tried, self.files
        drafts = Drafts(Author(self.description, self.examples, *asked), tried)
        try:
            yield from drafts.over_plans()
        except BudgetSpentError:
            yield from drafts.over_variants()
            raise
