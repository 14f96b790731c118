"""Training of the embedded model: scenes drawn on the fly, loss on the answers only, resumable at any time."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from carl.console.progress import Progress, silent
from carl.errors import ConfigError
from carl.nano.batches import Batch, collate, corpus, dialogues, practice, scenes_of
from carl.nano.model import build_model, build_processor, train_tokenizer
from carl.nano.scenes import FAMILIES
from carl.seeding import Role

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Recipe:
    """Settings of the training.

    Attributes:
        steps: updates, over all resumptions.
        batch: scenes per update; each carries the decomposition and half of them one program.
        rate: peak learning rate; it rises over the first 3 % and falls linearly to zero.
        seed: of weights and scenes.
        device: "cpu" or "cuda".
        checkpoint_every_s: seconds between checkpoints.
    """

    steps: int = 2_700
    batch: int = 16
    rate: float = 2e-3
    seed: int = 0
    device: str = "cpu"
    checkpoint_every_s: float = 120.0


def forward(model: Any, batch: Batch, device: str) -> tuple[Tensor, list[bool]]:
    """Mean loss over the answers' tokens, and for each scene whether greedy decoding would give all its answers."""
    targets = batch.targets.to(device)
    with torch.autocast(device, torch.bfloat16):
        hidden = model.model(
            input_ids=batch.ids.to(device),
            pixel_values=batch.pixels.to(device),
            attention_mask=batch.mask.to(device),
            position_ids=batch.positions.to(device),
            use_cache=False,
        ).last_hidden_state
        logits = model.lm_head(hidden[targets >= 0]).float()
    wanted = targets[targets >= 0]
    wrong = torch.zeros_like(targets, dtype=torch.bool)
    wrong[targets >= 0] = logits.argmax(-1) != wanted
    return F.cross_entropy(logits, wanted), (~wrong.any(-1)).tolist()


def optimizers(model: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings, norms and biases."""
    inner: list[nn.Parameter] = []
    outer: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (inner if parameter.ndim == 2 and "embed" not in name else outer).append(parameter)
    return [
        torch.optim.Muon(inner, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def schedule(done: float, warm_up: float = 0.03) -> float:
    """Share of the peak learning rate when ``done`` of the budget is spent."""
    return min(done / warm_up, (1.0 - done) / (1.0 - warm_up)) if done < 1.0 else 0.0


class Trainer:
    """A training run in a directory, which it continues if it finds its checkpoint there."""

    def __init__(self, recipe: Recipe, directory: Path) -> None:
        self.recipe, self.directory = recipe, directory
        self.step, self.seconds = 0, 0.0
        directory.mkdir(parents=True, exist_ok=True)
        saved = self._saved()
        self.tokenizer = Tokenizer.from_str(saved["tokenizer"]) if saved else train_tokenizer(corpus(recipe.seed))
        torch.manual_seed(recipe.seed)
        self.model: Any = build_model(self.tokenizer).to(recipe.device)
        self.optimizers = optimizers(self.model, recipe.rate)
        if saved:
            self._restore(saved)

    @property
    def done(self) -> float:
        """Share of the updates that are made."""
        return self.step / self.recipe.steps

    def run(self, progress: Progress = silent, log: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
        """Train until all updates are made; ``log`` gets loss and exact matches by family every 25 updates."""
        self.model.train()
        saved_at, losses, right = time.monotonic(), [], defaultdict(list)
        while self.done < 1.0:
            loss, families, exact = self._update()
            losses.append(loss)
            for family, good in zip(families, exact, strict=True):
                right[family].append(good)
            progress("training the embedded model", self.done, 1.0)
            if self.step % 25 == 0:
                log(
                    {"step": self.step, "seconds": round(self.seconds), "loss": float(np.mean(losses)), **_means(right)}
                )
                losses, right = [], defaultdict(list)
            if time.monotonic() - saved_at > self.recipe.checkpoint_every_s:
                self.save_checkpoint()
                saved_at = time.monotonic()
        self.save_checkpoint()

    def _update(self) -> tuple[float, list[str], list[bool]]:
        started = time.monotonic()
        rate = self.recipe.rate * max(schedule(self.done), 1e-3)
        drawn = scenes_of(self.recipe.seed, Role.TRAINING, self.step, self.recipe.batch)
        loss, exact = forward(
            self.model, collate(drawn, practice(drawn, self.step), self.tokenizer), self.recipe.device
        )
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.seconds += time.monotonic() - started
        return float(loss.detach()), [scene.family for scene in drawn], exact

    def save_checkpoint(self) -> None:
        """Write everything a resumed run needs; a run stopped while writing keeps the one before."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "recipe": self._fixed,
            "tokenizer": self.tokenizer.to_str(),
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        partial = self.directory / f"{CHECKPOINT}.partial"
        torch.save(state, partial)
        partial.replace(self.directory / CHECKPOINT)

    def _saved(self) -> dict[str, Any] | None:
        path = self.directory / CHECKPOINT
        return torch.load(path, map_location=self.recipe.device, weights_only=True) if path.exists() else None

    @property
    def _fixed(self) -> dict[str, float]:
        """What a resumed run cannot change."""
        return {name: getattr(self.recipe, name) for name in ("seed", "steps", "batch", "rate")}

    def _restore(self, saved: dict[str, Any]) -> None:
        if (before := saved.get("recipe")) != self._fixed:
            raise ConfigError(f"{self.directory} holds a training with {before}, not {self._fixed}; give another one")
        self.step, self.seconds = saved["step"], saved["seconds"]
        self.model.load_state_dict(saved["model"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)

    def export(self, folder: Path) -> None:
        """Save weights in bfloat16, configuration and processor where ``transformers`` can load them."""
        deepcopy(self.model).to(torch.bfloat16).save_pretrained(folder)
        build_processor(self.tokenizer).save_pretrained(folder)
        for path in folder.iterdir():
            path.chmod(0o644)  # safetensors writes for its owner alone

    @torch.no_grad()
    def accuracy(self, per_family: int = 256) -> dict[str, Mapping[str, float]]:
        """Exact match on scenes of two episodes that training never draws: of sub-tasks and programs, by family."""
        self.model.eval()
        right: tuple[dict[str, list[bool]], ...] = (defaultdict(list), defaultdict(list))
        for number, family in enumerate(FAMILIES):
            for start in range(0, per_family, 32):
                drawn = scenes_of(self.recipe.seed, Role.HELD_OUT, 1000 * number + start, 32, family, pairs=2)
                asked = [dialogues(scene, place) for place, scene in enumerate(drawn)]
                for stage, found in enumerate(right):
                    batch = collate(drawn, [each[stage : stage + 1] for each in asked], self.tokenizer)
                    for scene, good in zip(drawn, forward(self.model, batch, self.recipe.device)[1], strict=True):
                        found[scene.family].append(good)
        counts = {family: len(found) for family, found in sorted(right[0].items())}
        return {"scenes": counts, "sub_tasks": _means(right[0]), "programs": _means(right[1])}


def _means(by_family: dict[str, list[bool]]) -> dict[str, float]:
    return {family: round(float(np.mean(found)), 4) for family, found in sorted(by_family.items())}
