"""The root of the errors that provisioning raises."""

from fleet_protocol.errors import SkerryError


class ProvisioningError(SkerryError):
    """A key, a certificate or a claim cannot be made or read; the message says what to do."""
