"""The gate between a program that a model wrote and a reward that is trained on."""

from carl.verification.report import Check, FrameRef, VerificationReport
from carl.verification.verify import trace, verify

__all__ = ["Check", "FrameRef", "VerificationReport", "trace", "verify"]
