"""The place of a model's files, and its context length. Imports neither torch nor transformers."""

import json
from pathlib import Path
from typing import Any

from carl.config import EMBEDDED_MODEL
from carl.errors import VlmError
from carl.nano import WEIGHTS


def locate(model: str) -> str:
    """The folder or Hugging Face name of ``model``; raises VlmError if the embedded model's files are missing."""
    if model != EMBEDDED_MODEL:
        return model
    if not (WEIGHTS / "config.json").is_file():
        raise VlmError(f"the embedded model is missing from {WEIGHTS}; reinstall carl, or set vlm.model")
    return str(WEIGHTS)


def context_of(model: str) -> int | None:
    """Most tokens of prompt and answer together; None where the model's configuration is not on this machine yet.

    A model of text and pictures has it in ``text_config``.
    """
    path = _config_of(locate(model))
    try:
        config: Any = json.loads(path.read_text()) if path else {}
        found = config.get("text_config", config).get("max_position_embeddings")
    except (OSError, ValueError, AttributeError):  # loading the model raises the error
        return None
    return int(found) if isinstance(found, int) else None


def _config_of(where: str) -> Path | None:
    if Path(where).is_dir():
        return Path(where) / "config.json"
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(where, "config.json")
    except HFValidationError:  # a folder that is not there
        return None
    return Path(cached) if isinstance(cached, str) else None
