"""The embedded vision-language model: its scenes, its training and its weights. It knows gridworlds and nothing else."""
