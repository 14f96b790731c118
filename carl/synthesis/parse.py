"""What a VLM answered, as plans and code; an answer that is neither raises a ProgramError with the reason."""

from carl.synthesis.bare import Unusable
from carl.synthesis.plan import Plan, Step, parse_plan
from carl.synthesis.python import HOLD, MAX_HOLD, UNFIT, hold_of, parse_code, parse_codes

__all__ = [
    "HOLD",
    "MAX_HOLD",
    "UNFIT",
    "Plan",
    "Step",
    "Unusable",
    "hold_of",
    "parse_code",
    "parse_codes",
    "parse_plan",
]
