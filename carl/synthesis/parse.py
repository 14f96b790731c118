"""What a VLM answered, as plans and sources; whatever is neither raises a ProgramError that says why."""

from carl.synthesis.bare import Unusable
from carl.synthesis.plan import Plan, Step, parse_plan
from carl.synthesis.python import parse_code

__all__ = ["Plan", "Step", "Unusable", "parse_code", "parse_plan"]
