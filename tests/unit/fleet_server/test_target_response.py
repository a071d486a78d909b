"""A target as an answer: parts of it, and none of one that is gone by then."""

from pathlib import Path

import httpx
import pytest

from fleet_server.releases.target_response import TargetResponse

CONTENT = bytes(range(256))


async def asked(response: TargetResponse, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(response)
    async with httpx.AsyncClient(transport=transport, base_url="http://fleet") as client:
        return await client.get("/", headers=headers)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize(
    ("wanted", "status", "body"),
    [
        (None, 200, CONTENT),
        ("bytes=250-", 206, CONTENT[250:]),
        ("bytes=256-", 416, None),
        ("parsecs=1-", 400, None),
    ],
)
async def test_parts(file: Path, wanted: str | None, status: int, body: bytes | None) -> None:
    answer = await asked(TargetResponse(file), **({"Range": wanted} if wanted else {}))
    assert answer.status_code == status
    if body is None:
        assert answer.json()["code"] in {"malformed", "range_not_satisfiable"}
    else:
        assert answer.content == body


def of_a_file_that_went(file: Path, *, seen_before: bool) -> TargetResponse:
    response = TargetResponse(file, stat_result=file.stat() if seen_before else None)
    file.unlink()
    return response


@pytest.mark.parametrize("seen_before", [False, True])
async def test_a_file_that_is_gone_is_not_begun(file: Path, *, seen_before: bool) -> None:
    """The cache of deltas drops one between the look at it and the answer."""
    answer = await asked(of_a_file_that_went(file, seen_before=seen_before))
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
