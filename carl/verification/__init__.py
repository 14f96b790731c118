"""The gate between a program that a model wrote and a reward that is trained on."""

from carl.verification.gate import trace, verify
from carl.verification.report import Check, FrameRef, VerificationReport

__all__ = ["Check", "FrameRef", "VerificationReport", "trace", "verify"]
