"""Sampling row by row: in one batch every row has its own temperature, nucleus, seed, length and stop strings."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import LogitsProcessor, StoppingCriteria

from carl.serving.prompt import Sampling

Decode = Callable[[torch.Tensor], str]


class RowSampler(LogitsProcessor):
    """Turns greedy search into sampling: the largest of logits plus Gumbel noise is a draw from their softmax.

    (E. J. Gumbel, "Statistical Theory of Extreme Values", 1954.) A row's draws come from its own generator, so they
    do not depend on what else is in the batch.
    """

    def __init__(self, rows: Sequence[Sampling], device: torch.device) -> None:
        self._rows = rows
        self._generators = [_generator(row, device) for row in rows]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """``scores`` float[rows, vocabulary] with noise, for greedy search to compare."""
        return torch.stack([
            _perturbed(row, logits, generator)
            for row, logits, generator in zip(self._rows, scores, self._generators, strict=True)
        ])  # fmt: skip


def _generator(row: Sampling, device: torch.device) -> torch.Generator:
    generator = torch.Generator(device=device)
    entropy = np.random.SeedSequence(row.seed).generate_state(1, np.uint64)[0]
    return generator.manual_seed(int(entropy >> np.uint64(1)))


def _perturbed(row: Sampling, logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if row.temperature == 0.0:
        return logits
    logits = nucleus(logits.float() / row.temperature, row.top_p)
    noise = torch.empty_like(logits).exponential_(generator=generator).log().neg()
    return logits + noise


def nucleus(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the fewest tokens of ``logits`` (float[vocabulary]) whose probabilities reach ``top_p``; others get -inf.

    (Holtzman et al., "The Curious Case of Neural Text Degeneration", ICLR 2020.)
    """
    if top_p >= 1.0:
        return logits
    probabilities, order = logits.softmax(dim=-1).sort(descending=True)
    beyond = probabilities.cumsum(dim=-1) - probabilities >= top_p
    return logits.index_fill(0, order[beyond], -torch.inf)


class RowStops(StoppingCriteria):
    """Ends each row at its own length, end token or stop string, and remembers where and why.

    Attributes:
        lengths: tokens answered by each row, the end token included; 0 while it is still going.
        reasons: "stop" or "length".
    """

    def __init__(self, rows: Sequence[Sampling], start: int, end_tokens: frozenset[int], decode: Decode) -> None:
        self._rows, self._start, self._end_tokens, self._decode = rows, start, end_tokens, decode
        self.lengths = [0] * len(rows)
        self.reasons = ["length"] * len(rows)

    def __call__(
        self,
        input_ids: torch.Tensor,
        scores: torch.Tensor,  # noqa: ARG002  # the signature is transformers' own
        **kwargs: object,  # noqa: ARG002
    ) -> torch.Tensor:
        """Which rows are done, bool[rows]."""
        answers = input_ids[:, self._start :]
        last = answers[:, -1].tolist()
        for index, row in enumerate(self._rows):
            if self.lengths[index]:
                continue
            stopped = last[index] in self._end_tokens or self._has_stop_string(row, answers[index])
            if stopped or answers.shape[1] >= row.max_tokens:
                self.lengths[index] = answers.shape[1]
                self.reasons[index] = "stop" if stopped else "length"
        return torch.tensor([length > 0 for length in self.lengths], device=input_ids.device)

    def _has_stop_string(self, row: Sampling, answer: torch.Tensor) -> bool:
        if not row.stop:
            return False
        text = self._decode(answer)
        return any(stop in text for stop in row.stop)


def before_stop(text: str, stops: Sequence[str]) -> str:
    """``text`` up to the first of ``stops``."""
    return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))]
