"""Texts that every database stores: PostgreSQL takes no NUL, and none takes half a surrogate pair.

What a person sends with one is refused, with its field; what a device says goes on without it,
because a device that cannot be answered must not hold up what follows from its word.
"""

import re
from typing import Annotated

from pydantic import AfterValidator
from starlette.requests import Request

from fleet_server.errors import MalformedError

_NUL = "\x00"


def storable(text: str) -> str:
    """Return a text of a device without NUL."""
    return text.replace(_NUL, "")


def _checked(text: str) -> str:
    if _REFUSED.search(text):
        raise ValueError(_REFUSAL)
    return text


_REFUSED = re.compile("[\x00\ud800-\udfff]")
_REFUSAL = "it contains NUL or half of a surrogate pair, which nothing here may"

StorableText = Annotated[str, AfterValidator(_checked)]
"""Text in a request."""


async def no_nul(request: Request) -> None:
    """Refuse NUL in the path and the query of a request: a dependency of every route.

    Raises:
        MalformedError: there is one; the message names the parameter.
    """
    for where, given in (
        ("path", request.path_params.items()),
        ("query", request.query_params.multi_items()),
    ):
        for name, value in given:
            if _NUL in name or _NUL in str(value):
                raise MalformedError(f"{where}.{storable(name)[:100]}: {_REFUSAL}")
