"""Parts of ``benchmarks/reward_quality.py``."""
