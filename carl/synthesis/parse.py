"""What a VLM answered, as plans and code; an answer that is neither raises a ProgramError with the reason."""

from carl.synthesis.bare import Unusable
from carl.synthesis.plan import Plan, Step, parse_plan
from carl.synthesis.python import parse_code

__all__ = ["Plan", "Step", "Unusable", "parse_code", "parse_plan"]
