"""What can go wrong in the runtime process.

`http_errors` knows the HTTP status of each, `grpc_api.statuses` the gRPC one, and `error_answers`
the word that counts it.
"""

from edge_agent.errors import AgentError


class InferenceError(AgentError):
    """Root of the runtime's errors; the message is safe to show to a caller."""


class RequestError(InferenceError):
    """The caller's fault: malformed, or not what the model takes. Nothing was run."""


class TooLargeError(RequestError):
    """The request is larger than this device reads."""


class NotSentError(InferenceError):
    """The caller opened a call and did not send its request in time."""


class ForbiddenError(InferenceError):
    """Applications may not do that."""


class NotOfferedError(InferenceError):
    """The protocol has it, this runtime has not."""


class UnknownModelError(InferenceError):
    """Nothing of that name and version is served where the caller asked."""


class UnavailableError(InferenceError):
    """The device should be able to answer but cannot at the moment."""


class RefusedError(InferenceError):
    """The call was not run because there is too much to do.

    Attributes:
        retry_after_s: when it may go better, None if nobody can say.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        """Keep what the answer needs."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateError(RefusedError):
    """The connection sends more requests than it may."""


class DeadlineError(RefusedError):
    """The call was not run because its answer would come after its deadline."""


class AsleepError(RefusedError):
    """The model has left memory because nobody used it, and is not back yet."""


class ConflictError(InferenceError):
    """An admin request contradicts what the runtime holds."""


class LoadError(InferenceError):
    """A release cannot be loaded: no library, no file, a broken model, or not what it claims."""


class NoRoomError(LoadError):
    """A release does not fit into memory beside those that are there now.

    Attributes:
        retry_after_s: when it may fit, None if nobody can say.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        """Keep what the answer needs."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeviceFaultError(LoadError):
    """A release was not loaded because the device failed, which says nothing about the release."""


class BackendError(InferenceError):
    """The inference library failed on a well-formed call; the details are in the log."""
