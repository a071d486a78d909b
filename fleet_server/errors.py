"""The errors of the fleet server. They say what went wrong; HTTP is `http_errors`' business."""

from fleet_protocol.errors import SkerryError


class FleetError(SkerryError):
    """Something at the server went wrong; the message says what it means and what to do."""


class SetupError(FleetError):
    """The server cannot start: data directory, settings, port or key; nothing was changed."""


class SettingsError(SetupError):
    """The settings cannot be read; the message names file or variable and key."""


class MalformedError(FleetError):
    """What was received cannot be read as what it should be."""


class ForeignBrowserError(MalformedError):
    """A login comes back from the provider to another browser than the one that began it."""


class NotAuthenticatedError(FleetError):
    """The caller did not prove who it is."""


class NotPermittedError(FleetError):
    """The caller is known and may not do this."""


class NotFoundError(FleetError):
    """What was asked for does not exist."""


class ConflictError(FleetError):
    """The request contradicts what is stored; repeating it unchanged will not help."""


class RefusedError(FleetError):
    """The request is well-formed, and what it asks for must not be done."""


class ThrottledError(FleetError):
    """Too many attempts.

    Attributes:
        retry_after_s: when to try again.
    """

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooLargeError(FleetError):
    """More was sent than is accepted.

    Attributes:
        limit_bytes: how much would have been accepted.
    """

    def __init__(self, message: str, *, limit_bytes: int) -> None:
        super().__init__(message)
        self.limit_bytes = limit_bytes


class StorageFullError(FleetError):
    """The disk of the server has no room for it."""


class UnavailableError(FleetError):
    """A part that the request needs is down for now.

    Attributes:
        retry_after_s: when to try again.
    """

    def __init__(self, message: str, *, retry_after_s: int = 5) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
