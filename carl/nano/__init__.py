"""The embedded vision-language model: its scenes, its teacher, its training and its weights.

It reads MiniGrid's rooms and nothing else.
"""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
"""Folder that ``transformers`` loads the embedded model from."""
