"""The root of the errors that the pipeline raises."""

from fleet_protocol.errors import SkerryError


class PipelineError(SkerryError):
    """A model cannot be packed or published; the message says what to do."""


class BundleError(PipelineError):
    """A file is not a bundle, or not a whole one."""
