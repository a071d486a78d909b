"""What the head of an HTTP answer says of its body, judged before a byte of it is taken. Pure.

A proxy or a CDN stands between device and server sometimes. What it puts in the place of a file (a
page for people, another part than was asked for, a compressed copy) would be refused at the end of
the download, by the signed hash; here it is told at once, and what is there already is kept.
"""

import re
from collections.abc import Mapping

PARTIAL_CONTENT = 206

_ASKED = re.compile(r"bytes=([0-9]{1,18})-")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")


def stated_bytes(status: int, headers: Mapping[str, str], *, asked: str | None) -> int | None:
    """Return how large the whole file is that an answer is from; None if it does not say.

    Args:
        status: 200 or 206.
        headers: of the answer; names in any case.
        asked: the ``Range`` of the request, ``bytes=<first>-`` (RFC 9110, section 14).

    Raises:
        ValueError: it is not what was asked for.
    """
    encoding = headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise ValueError(f"a body in the encoding {encoding[:40]!r}, which was not asked for")
    if status != PARTIAL_CONTENT:
        length = headers.get("Content-Length", "")
        return int(length) if re.fullmatch("[0-9]{1,18}", length) else None
    wanted = None if asked is None else _ASKED.fullmatch(asked)
    stated = headers.get("Content-Range", "")
    found = _CONTENT_RANGE.fullmatch(stated)
    if wanted is None or found is None or int(found[1]) != int(wanted[1]):
        raise ValueError(f"the part {stated[:80]!r}, where {asked or 'the whole'} was asked for")
    return None if found[2] == "*" else int(found[2])
