"""The streaming form reader."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.errors import MalformedError
from fleet_server.releases.multipart import MAX_PARTS, PartBegin, PartData, PartEnd, pieces
from tests.unit.fleet_server.upload_form import BOUNDARY, CONTENT_TYPE, chunks, form


async def read(
    body: bytes, *, content_type: str | None = CONTENT_TYPE, size: int = 1000
) -> list[tuple[str, str | None, bytes]]:
    parts: list[tuple[str, str | None, bytes]] = []
    async for piece in pieces(content_type, chunks(body, size)):
        match piece:
            case PartBegin(name, filename):
                parts.append((name, filename, b""))
            case PartData(content):
                parts[-1] = (*parts[-1][:2], parts[-1][2] + content)
            case PartEnd():
                pass
    return parts


@given(
    st.lists(st.binary(max_size=300).filter(lambda content: b"--" not in content), min_size=1),
    st.integers(1, 50),
)
async def test_any_content_in_any_chunks(contents: list[bytes], size: int) -> None:
    parts = [("targets", f"a/{number}", content) for number, content in enumerate(contents)]
    assert await read(form(*parts), size=size) == parts


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form(("a", None, b"x")), None),
        (form(("a", None, b"x")), "application/json"),
        (form(("a", None, b"x")), "multipart/form-data"),
        (form(("a", None, b"x")), f"multipart/form-data; boundary={'x' * 300}"),
        (form(("a", None, b"x"))[:-20], CONTENT_TYPE),
        (b"", CONTENT_TYPE),
        (b"garbage", CONTENT_TYPE),
        (f"--{BOUNDARY}\r\nX: y\r\n\r\n\r\n--{BOUNDARY}--\r\n".encode(), CONTENT_TYPE),
        (form(*[("a", None, b"")] * (MAX_PARTS + 1)), CONTENT_TYPE),
    ],
)
async def test_malformed(body: bytes, content_type: str | None) -> None:
    with pytest.raises(MalformedError):
        await read(body, content_type=content_type)
