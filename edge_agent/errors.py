"""The root of the errors that the agent raises; each area derives its own."""

from fleet_protocol.errors import SkerryError


class AgentError(SkerryError):
    """Something on the device went wrong; the message says what it means and what to do."""
