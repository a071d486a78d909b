"""The root of the errors about signing keys."""

from fleet_protocol.errors import SkerryError


class SigningKeyError(SkerryError):
    """A signing key or its secret cannot be used; the message says what to do."""
