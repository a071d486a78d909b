"""The runtime process: loads models, answers calls, counts them, and does nothing else."""
