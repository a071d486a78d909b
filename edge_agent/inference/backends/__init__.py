"""Backends: one module for each inference library, imported when it is first needed."""
