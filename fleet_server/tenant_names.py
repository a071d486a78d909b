"""Names of tenants, for those who need no database."""

DEFAULT = "default"
"""The tenant of everything that was there before there were tenants."""

MAX_NAME = 63
