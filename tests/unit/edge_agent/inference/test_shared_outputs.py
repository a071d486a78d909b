"""Places for outputs in shared memory are looked at before the model runs."""

import json
from pathlib import Path

import msgspec
import pytest

from edge_agent.inference.shared_memory import Regions, RegionStatus
from edge_agent.runtime_api import ActiveRelease
from fleet_protocol.manifest import Datatype, TensorSpec
from tests.unit.edge_agent.inference.gated_backend import GatedBackend
from tests.unit.edge_agent.inference.route_calls import infer
from tests.unit.edge_agent.inference.sized_releases import MakePlane, serve, sized

FIXED, FREE = 2, -1


def release(size: int) -> ActiveRelease:
    tensors = [TensorSpec(name=name, datatype=Datatype.FP32, shape=[size]) for name in "xy"]
    return msgspec.structs.replace(sized("m", 1), inputs=tensors[:1], outputs=tensors[1:])


def body(place: dict[str, object]) -> bytes:
    parameters = {f"shared_memory_{name}": value for name, value in place.items()}
    given = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]}
    return json.dumps(
        {"inputs": [given], "outputs": [{"name": "y", "parameters": parameters}]}
    ).encode()


@pytest.mark.parametrize(
    "case",
    [
        (FIXED, {"region": "r", "byte_size": 8}, 1, ""),
        (FREE, {"region": "r", "byte_size": 8}, 1, ""),
        (FIXED, {"region": "q", "byte_size": 8}, 0, "no shared memory region 'q'"),
        (FREE, {"region": "q", "byte_size": 8}, 0, "no shared memory region 'q'"),
        (FREE, {"region": "r", "byte_size": 8, "offset": 93}, 0, "at offset 93 lie outside"),
        (FIXED, {"region": "r", "byte_size": 7}, 0, "8 bytes do not fit into the 7 bytes"),
        # How many there will be is not known beforehand.
        (FREE, {"region": "r", "byte_size": 7}, 1, "8 bytes do not fit into the 7 bytes"),
    ],
)
async def test_a_place_that_cannot_take_the_output_is_refused_before_the_run(
    make_plane: MakePlane,
    backend: GatedBackend,
    tmp_path: Path,
    case: tuple[int, dict[str, object], int, str],
) -> None:
    size, place, runs, complaint = case
    plane = make_plane()
    await serve(plane, release(size))
    file = tmp_path / "file"
    file.write_bytes(bytes(100))
    regions = Regions(max_bytes=100, max_request_bytes=100, folder=tmp_path)
    regions.register(RegionStatus(name="r", key="file", offset=0, byte_size=100))
    backend.runs.clear()  # those of the warm-up
    response = await infer(plane, "m", body=body(place), regions=regions)
    assert response.status == (400 if complaint else 200)
    assert complaint in b"".join(map(bytes, response.parts)).decode()
    assert len(backend.runs) == runs
    assert any(file.read_bytes()) is not bool(complaint)
