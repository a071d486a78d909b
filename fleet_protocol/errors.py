"""The base of every error of Skerry and the root of those of the contract.

Each part derives its own root from `SkerryError`: `ProtocolError` here, ``AgentError``,
``FleetError``, ``PipelineError`` and ``ProvisioningError`` in theirs. The command line catches the
base, prints the message and exits with 1, so a message says what happened and what to do next.
"""


class SkerryError(Exception):
    """Base of the five roots; nothing raises it itself."""


class ProtocolError(SkerryError, ValueError):
    """Something received or about to be sent breaks the contract; the message says what."""
