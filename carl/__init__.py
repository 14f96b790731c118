"""carl: train reinforcement-learning agents on rewards that a vision-language model wrote as code.

The method is Code as Reward (VLM-CaR; Venuto et al., ICML 2024, arXiv 2402.04764).
Importing this package is light: torch, ray and transformers are imported where they are first needed.
"""

__version__ = "0.1.0"
