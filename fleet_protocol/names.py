r"""The names that travel: which strings may identify a device, a family, a version, a file.

All of them end up in topics, URLs and file paths, so each is a short list of harmless characters.
The patterns close with ``\Z`` because ``$`` would let a final newline through.
"""

import re
from typing import Annotated

from msgspec import Meta

from fleet_protocol.errors import ProtocolError

_DEVICE_ID = r"\A[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z"
_FAMILY = r"\A[a-z0-9][a-z0-9_-]{0,63}\Z"
_VERSION = (
    r"\A(?:0|[1-9][0-9]{0,8})(?:\.(?:0|[1-9][0-9]{0,8})){2}(?:-[0-9A-Za-z][0-9A-Za-z.-]{0,31})?\Z"
)
_FILE = r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z"
_SHA256 = r"\A[0-9a-f]{64}\Z"
_LABEL_NAME = r"\A[a-z0-9](?:[a-z0-9._/-]{0,78}[a-z0-9])?\Z"
_LABEL_VALUE = r"\A[A-Za-z0-9](?:[A-Za-z0-9._:/+@-]{0,61}[A-Za-z0-9])?\Z"
MAX_LABELS = 32
"""Labels of one device."""

DeviceId = Annotated[str, Meta(pattern=_DEVICE_ID, description="a DNS label: a-z, 0-9, hyphens")]
Family = Annotated[
    str, Meta(pattern=_FAMILY, description="a model family: a-z, 0-9, hyphens, underscores")
]
Version = Annotated[
    str, Meta(pattern=_VERSION, description="MAJOR.MINOR.PATCH with optional -suffix")
]
FileName = Annotated[str, Meta(pattern=_FILE, description="a flat file name, no directory")]
LabelName = Annotated[
    str, Meta(pattern=_LABEL_NAME, description="name of a label: a-z, 0-9 and . _ / -")
]
LabelValue = Annotated[
    str,
    Meta(pattern=_LABEL_VALUE, description="value of a label: letters, digits and . _ : / + @ -"),
]
Sha256 = Annotated[str, Meta(pattern=_SHA256, description="64 lower-case hexadecimal digits")]


def _checked(pattern: str, value: str, what: str, hint: str) -> str:
    if re.match(pattern, value) is None:
        raise ProtocolError(f"{value[:80]!r} is not a {what}: {hint}")
    return value


def device_id(value: str) -> str:
    """Return ``value`` if it can name a device, which makes it safe in a topic and in a path.

    Raises:
        ProtocolError: it is not a DNS label of lower-case letters, digits and hyphens.
    """
    return _checked(
        _DEVICE_ID, value, "device id", "use 1 to 63 of a-z, 0-9 and hyphens, no hyphen at an end"
    )


def family(value: str) -> str:
    """Return ``value`` if it can name a model family.

    Raises:
        ProtocolError: it cannot.
    """
    return _checked(_FAMILY, value, "model family", "use 1 to 64 of a-z, 0-9, hyphens, underscores")


def version(value: str) -> str:
    """Return ``value`` if it is a release version such as ``1.4.0`` or ``1.4.0-rc1``.

    Raises:
        ProtocolError: it is not.
    """
    return _checked(_VERSION, value, "release version", "use MAJOR.MINOR.PATCH, such as 1.4.0")


def file_name(value: str) -> str:
    """Return ``value`` if it is a flat file name that no file system treats specially.

    Raises:
        ProtocolError: it has a directory, a leading dot, or characters beyond letters, digits,
            dot, hyphen and underscore.
    """
    return _checked(_FILE, value, "file name", "use letters, digits, dot, hyphen and underscore")


def label_name(value: str) -> str:
    """Return ``value`` if it can name a label or a fact of a device.

    Raises:
        ProtocolError: it cannot.
    """
    hint = "use 1 to 80 of a-z, 0-9 and . _ / -, with a letter or digit at both ends"
    return _checked(_LABEL_NAME, value, "label name", hint)


def label_value(value: str) -> str:
    """Return ``value`` if a label or a fact may have it.

    Raises:
        ProtocolError: it may not.
    """
    hint = "use 1 to 63 letters, digits and . _ : / + @ -, with a letter or digit at both ends"
    return _checked(_LABEL_VALUE, value, "label value", hint)


def target_path(family_name: str, release_version: str, file: str) -> str:
    """Return the TUF target path of one file of a release, ``models/<family>/<version>/<file>``.

    Raises:
        ProtocolError: one of the parts is not a valid name.
    """
    return f"models/{family(family_name)}/{version(release_version)}/{file_name(file)}"


def parse_target_path(path: str) -> tuple[str, str, str]:
    """Return (family, version, file) of a TUF target path.

    Raises:
        ProtocolError: the path is not of the form that `target_path` builds.
    """
    parts = path.split("/")
    if len(parts) != 4 or parts[0] != "models":  # noqa: PLR2004 (models, family, version, file)
        raise ProtocolError(f"{path[:200]!r} is not models/<family>/<version>/<file>")
    return family(parts[1]), version(parts[2]), file_name(parts[3])
