"""VlmEngine: any image-and-text model of transformers, run in batches. Independent of Ray and HTTP."""

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
import transformers

from carl.config import EMBEDDED_MODEL
from carl.errors import VlmError
from carl.nano.pictures import readable
from carl.serving.prompt import Completion, Messages, Prompt, PromptError
from carl.serving.sampling import RowSampler, RowStops, before_stop
from carl.serving.weights import locate

hub: Any = transformers
"""transformers, whose annotations are partial."""


class VlmEngine:
    """A loaded model and its processor. Not thread-safe: one ``generate`` at a time."""

    def __init__(self, model: Any, processor: Any, readable: Callable[[Messages], Messages] | None = None) -> None:
        """``readable`` leaves out of messages what the model was not made for; None: it is shown everything."""
        self._model, self._processor, self._readable = model, processor, readable
        self._tokenizer = getattr(processor, "tokenizer", processor)
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._generation = self._greedy_config()

    @classmethod
    def load(cls, model: str, threads: int | None = None) -> Self:
        """Load the embedded model, a Hugging Face name or a folder; raises VlmError.

        accelerate places the weights: on GPUs in the checkpoint's own type, on a CPU in float32.
        ``threads`` is the number of cores that torch may use. None is all of this process's, except one for the
        embedded model, whose matrices are too small to share: on busy cores two threads took 30 times as long, waiting.
        """
        hub.utils.logging.set_verbosity_error()
        hub.utils.logging.disable_progress_bar()
        torch.set_num_threads(threads or (1 if model == EMBEDDED_MODEL else len(os.sched_getaffinity(0))))
        where = locate(model)
        if where.startswith(("/", ".")) and not Path(where).is_dir():  # no name at Hugging Face begins so
            raise VlmError(f"cannot load the model {model!r}: there is no such folder on the node that was to hold it")
        dtype = "auto" if torch.cuda.is_available() else torch.float32
        try:
            processor = load_processor(where)
            weights = hub.AutoModelForImageTextToText.from_pretrained(where, device_map="auto", dtype=dtype)
        except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
            raise VlmError(f"cannot load the model {model!r} from {where}: {error}") from error
        return cls(weights.eval(), processor, readable if model == EMBEDDED_MODEL else None)

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together."""
        return int(getattr(self._model.config.get_text_config(), "max_position_embeddings", None) or 1 << 20)

    def generate(self, prompts: Sequence[Prompt]) -> list[Completion]:
        """Completions of all prompts, in order, in at most two batches: with and without images.

        Raises PromptError if the model cannot take one of them; then none is answered.
        """
        if self._readable:
            prompts = [replace(prompt, messages=self._readable(prompt.messages)) for prompt in prompts]
        answers: dict[int, Completion] = {}
        for with_images in (True, False):  # processors do not take rows with and without images in one call
            rows = [index for index, prompt in enumerate(prompts) if prompt.has_images is with_images]
            if rows:
                answers.update(zip(rows, self._generate_alike([prompts[row] for row in rows]), strict=True))
        return [answers[index] for index in range(len(prompts))]

    @torch.inference_mode()
    def _generate_alike(self, prompts: Sequence[Prompt]) -> list[Completion]:
        inputs = self._render(prompts).to(self._model.device, dtype=self._model.dtype)
        counts = [int(count) for count in inputs["attention_mask"].sum(dim=1)]
        samplings = [self._fitted(prompt, count) for prompt, count in zip(prompts, counts, strict=True)]
        start = inputs["input_ids"].shape[1]
        stops = RowStops(samplings, start, self._end_tokens(), self._decode)
        output = self._model.generate(
            **inputs,
            generation_config=self._generation,
            max_new_tokens=max(sampling.max_tokens for sampling in samplings),
            logits_processor=[RowSampler(samplings, self._model.device)],
            stopping_criteria=[stops],
        )
        texts = [self._decode(row[start : start + length]) for row, length in zip(output, stops.lengths, strict=True)]
        return [
            Completion(before_stop(text, sampling.stop), reason, count, length)
            for text, sampling, reason, count, length in zip(
                texts, samplings, stops.reasons, counts, stops.lengths, strict=True
            )
        ]

    def _render(self, prompts: Sequence[Prompt]) -> Any:
        """The prompts' tensors by the model's chat template, padded on the left, as answers follow on the right."""
        conversations = [[dict(message) for message in prompt.messages] for prompt in prompts]
        try:
            return self._processor.apply_chat_template(
                conversations,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": True, "padding_side": "left"},
            )
        except Exception as error:  # a template is a checkpoint's own Jinja program, and may raise anything
            raise PromptError(f"the model's processor refuses these messages: {error}") from error

    def _fitted(self, prompt: Prompt, tokens: int) -> Any:
        room = self.context - tokens
        if room < 1:
            raise PromptError(f"the prompt has {tokens} tokens; this model's context holds {self.context}")
        return replace(prompt.sampling, max_tokens=min(prompt.sampling.max_tokens, room))

    def _greedy_config(self) -> Any:
        config = copy.deepcopy(self._model.generation_config)
        config.update(do_sample=False, num_beams=1, temperature=None, top_p=None, top_k=None, max_length=None)
        config.update(pad_token_id=self._tokenizer.pad_token_id)
        return config

    def _end_tokens(self) -> frozenset[int]:
        tokens = self._generation.eos_token_id
        tokens = self._tokenizer.eos_token_id if tokens is None else tokens
        return frozenset(tokens if isinstance(tokens, list) else [tokens])

    def _decode(self, tokens: torch.Tensor) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))


def load_processor(where: str) -> Any:
    """The model's processor. Without torchvision, video is left out of processors that would also take it."""
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    processor_class = PROCESSOR_MAPPING.get(type(hub.AutoConfig.from_pretrained(where)), None)
    if (
        hub.utils.is_torchvision_available()
        or processor_class is None
        or "video_processor" not in _parts(processor_class)
    ):
        return hub.AutoProcessor.from_pretrained(where)
    return without_video(processor_class).from_pretrained(where)


def _parts(processor_class: Any) -> list[str]:
    return list(processor_class.get_attributes())


def without_video(processor_class: Any) -> Any:
    """``processor_class`` for images and text alone: transformers' video processors need torchvision."""

    class ImagesOnly(processor_class):  # type: ignore[misc]
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [part for part in super().get_attributes() if part != "video_processor"]

    ImagesOnly.__name__ = processor_class.__name__
    return ImagesOnly
