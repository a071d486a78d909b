"""Deltas between published files: made on demand by a worker process, kept in a bounded cache."""
