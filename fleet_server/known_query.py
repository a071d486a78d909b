"""Refuses query parameters that a route of the operator API does not have.

A misspelt filter would else widen what it was to narrow, without a word. The device API is left
out: there either side may be the newer one.
"""

from collections.abc import Iterator

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

_OTHERS_ADD = frozenset({"/api/v1/oidc/callback"})
"""Providers add parameters of their own, which RFC 6749, section 4.1.2, has us ignore."""

_MAX_SHOWN = 80


async def check(request: Request) -> None:
    """Return if the route knows every parameter of the query.

    Raises:
        RequestValidationError: it does not; the error names those that it does not know.
    """
    route = request.scope.get("route")
    if not request.query_params or not isinstance(route, APIRoute) or route.path in _OTHERS_ADD:
        return
    known = sorted(set(_names(route.dependant)))
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        has = f"it has {', '.join(known)}" if known else "it has none"
        problem = f"there is no such parameter here, {has}"
        raise RequestValidationError(
            [
                {"type": "extra_forbidden", "loc": ("query", name[:_MAX_SHOWN]), "msg": problem}
                for name in unknown
            ]
        )


def _names(dependant: Dependant) -> Iterator[str]:
    for field in dependant.query_params:
        yield field.alias
    for inner in dependant.dependencies:
        yield from _names(inner)
