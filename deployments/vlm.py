"""A vision-language model on Ray Serve, speaking OpenAI's chat completions.

``serve run deployments/vlm.yaml``, or ``carl serve``. The code is ``carl.serving``, so that an installed carl has it
too; this is the name that the YAML imports.
"""

from carl.serving.app import build

__all__ = ["build"]
