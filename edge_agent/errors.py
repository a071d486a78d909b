"""The root of the errors that the agent raises; each area derives its own."""


class AgentError(Exception):
    """Something on the device went wrong; the message says what it means and what to do."""
