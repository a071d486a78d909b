"""Rollouts: a release reaches a fleet in stages, and stops by itself when it does harm."""
