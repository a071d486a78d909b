"""The one root of the errors that the contract raises."""


class ProtocolError(ValueError):
    """Something received or about to be sent breaks the contract; the message says what."""
