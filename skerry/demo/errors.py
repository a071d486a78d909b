"""What can go wrong in the demo."""

from fleet_protocol.errors import SkerryError


class DemoError(SkerryError):
    """The demo cannot go on; the message says why and where to look."""
