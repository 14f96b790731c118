"""The gate between a program that a model wrote and a reward that is trained on."""

from carl.verification.gate import Gate, verify
from carl.verification.replay import trace
from carl.verification.report import Check, FrameRef, VerificationReport
from carl.verification.rule import Case, Evidence, Rule
from carl.verification.rules import default_rules

__all__ = [
    "Case",
    "Check",
    "Evidence",
    "FrameRef",
    "Gate",
    "Rule",
    "VerificationReport",
    "default_rules",
    "trace",
    "verify",
]
