"""Heads of answers: what is from the file that was asked for, and how large that is."""

import pytest

from edge_agent.control.answer_head import stated_bytes

FITTING = {
    "whole": (200, {"Content-Length": "70"}, None, 70),
    "whole, although a part was asked for": (200, {"Content-Length": "70"}, "bytes=5-", 70),
    "whole, in chunks": (200, {}, None, None),
    "a length that is none": (200, {"Content-Length": "-7"}, None, None),
    "not encoded": (200, {"Content-Encoding": "Identity"}, None, None),
    "the part": (206, {"Content-Range": "bytes 5-69/70"}, "bytes=5-", 70),
    "the beginning of the part": (206, {"Content-Range": "bytes 5-9/70"}, "bytes=5-", 70),
    "a part of who knows how much": (206, {"Content-Range": "bytes 5-69/*"}, "bytes=5-", None),
}
UNFIT = {
    "an earlier part": (206, {"Content-Range": "bytes 0-69/70"}, "bytes=5-"),
    "a later part": (206, {"Content-Range": "bytes 6-69/70"}, "bytes=5-"),
    "a part that nobody asked for": (206, {"Content-Range": "bytes 0-69/70"}, None),
    "several parts": (206, {"Content-Type": "multipart/byteranges"}, "bytes=5-"),
    "an unreadable part": (206, {"Content-Range": "lines 5-69/70"}, "bytes=5-"),
    "a number without end": (206, {"Content-Range": f"bytes 5-69/{'9' * 5000}"}, "bytes=5-"),
    "compressed": (200, {"Content-Encoding": "gzip"}, None),
    "compressed twice": (200, {"Content-Encoding": "identity, br"}, None),
}


@pytest.mark.parametrize(("status", "headers", "asked", "size"), FITTING.values(), ids=FITTING)
def test_a_fitting_answer(
    status: int, headers: dict[str, str], asked: str | None, size: int | None
) -> None:
    assert stated_bytes(status, headers, asked=asked) == size


@pytest.mark.parametrize(("status", "headers", "asked"), UNFIT.values(), ids=UNFIT)
def test_an_answer_to_another_request(
    status: int, headers: dict[str, str], asked: str | None
) -> None:
    with pytest.raises(ValueError, match=r"^(a body in the encoding|the part) '.{0,80}'"):
        stated_bytes(status, headers, asked=asked)
