"""Whom a path of the V2 protocol belongs to."""

import json

from edge_agent.inference.grpc_api.descriptions import Descriptions
from edge_agent.inference.grpc_api.wire.open_inference_pb2 import ModelMetadataRequest
from tests.unit.edge_agent.inference.route_calls import ask, infer
from tests.unit.edge_agent.inference.sized_releases import MakePlane, serve, sized


async def test_a_family_called_stats_has_all_paths_below_the_statistics_of_all_models(
    make_plane: MakePlane,
) -> None:
    plane = make_plane()
    await serve(plane, sized("stats", 1))
    await serve(plane, sized("other", 1))

    def answered(path: str) -> dict[str, object]:
        response = ask(plane, "GET", path)
        assert response.status == 200
        found: dict[str, object] = json.loads(b"".join(map(bytes, response.parts)) or b"{}")
        return found

    def counted(path: str) -> list[str]:
        entries = answered(path)["model_stats"]
        assert isinstance(entries, list)
        return [entry["name"] for entry in entries]

    # Triton's path for all of them, as it takes it, whatever models are called.
    assert counted("/v2/models/stats") == ["other", "stats"]
    assert counted("/v2/models/stats/stats") == ["stats"]
    assert counted("/v2/models/stats/versions/1.0.0/stats") == ["stats"]
    assert answered("/v2/models/stats/versions/1.0.0")["name"] == "stats"
    assert answered("/v2/models/stats/config")["name"] == "stats"
    assert answered("/v2/models/stats/ready") == {}
    assert (await infer(plane, "stats")).status == 200
    describe = Descriptions(plane, max_request_bytes=1024, shared_memory=False)
    assert describe.model(ModelMetadataRequest(name="stats")).name == "stats"
