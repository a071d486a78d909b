"""The V2 protocol against the running process, over the Unix socket and TCP."""

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from edge_agent.inference.tensors import Tensor
from tests.integration.runtime.raw_client import RawClient
from tests.integration.runtime.reference_calls import (
    BINARY_OUTPUT,
    INFER,
    batch,
    golden,
    infer,
    logits,
)
from tests.integration.runtime.running_runtime import RunningRuntime
from tests.unit.edge_agent.inference import v2_request


@pytest.fixture(params=["unix", "tcp"])
def client(
    request: pytest.FixtureRequest, runtime: RunningRuntime, port: int
) -> Iterator[RawClient]:
    address = port if request.param == "tcp" else runtime.state.runtime_socket
    with RawClient(address) as connected:
        yield connected


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_golden_images_are_answered(
    client: RawClient, *, binary_in: bool, binary_out: bool
) -> None:
    for number, (image, expected) in enumerate(golden("fp32")[:4]):
        fields = {
            "id": f"call-{number}",
            "outputs": [{"name": "logits", "parameters": {"binary_data": binary_out}}],
        }
        body, length = v2_request.encode([image], binary=[binary_in], fields=fields)
        response = client.call("POST", INFER, body, header_length=length)
        assert response.status == 200
        assert logits(response) == pytest.approx(expected, abs=1e-3)
        assert ("inference-header-content-length" in response.headers) == binary_out
        answer, _ = v2_request.decode(
            response.body,
            int(response.headers["inference-header-content-length"]) if binary_out else None,
        )
        assert {key: answer[key] for key in ("model_name", "model_version", "id")} == {
            "model_name": "fashion_mnist",
            "model_version": "1.0.0",
            "id": f"call-{number}",
        }


def test_a_large_batch_runs_beside_the_loop(client: RawClient) -> None:
    expected = [number for _, numbers in golden("fp32") for number in numbers]
    images = len(expected) // 10
    _, answered = infer(client, batch(200))
    assert answered[: images * 10] == pytest.approx(expected, abs=1e-3)
    assert len(answered) == 2000


def test_the_version_may_be_named(client: RawClient) -> None:
    image, expected = golden("fp32")[0]
    _, answered = infer(client, image, "/v2/models/fashion_mnist/versions/1.0.0/infer")
    assert answered == pytest.approx(expected, abs=1e-3)


def test_metadata(client: RawClient) -> None:
    server = client.call("GET", "/v2").json
    assert server["name"] == "skerry"
    assert server["extensions"] == [
        "binary_tensor_data",
        "classification",
        "model_configuration",
        "model_repository",
        "parameters",
        "schedule_policy",
        "statistics",
    ]
    model = {
        "name": "fashion_mnist",
        "versions": ["1.0.0"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 28, 28]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}],
        "parameters": {"variant": "fp32", "accelerator": "cpu", "choice": ""},
    }
    assert client.call("GET", "/v2/models/fashion_mnist").json == model
    assert client.call("GET", "/v2/models/fashion_mnist/versions/1.0.0").json == model


@pytest.mark.parametrize(
    "path",
    [
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/fashion_mnist/ready",
        "/v2/models/fashion_mnist/versions/1.0.0/ready",
        "/v2/models/fashion%5Fmnist/ready?verbose=1",
    ],
)
def test_health(client: RawClient, path: str) -> None:
    response = client.call("GET", path)
    assert (response.status, response.body) == (200, b"")


_IMAGE = {"name": "image", "shape": [1, 1, 28, 28], "datatype": "FP32", "data": [0.0] * 784}


@pytest.mark.parametrize(
    "case",
    [
        ("GET", "/", b"", 404, "no such path: '/'"),
        ("GET", "/v2/nothing", b"", 404, "no such path"),
        ("GET", "/v2/models/fashion_mnist/nothing", b"", 404, "no such path"),
        ("GET", "/v2/models/other", b"", 404, "no model 'other' here; this device serves: fashion"),
        ("GET", "/v2/models/other/ready", b"", 404, "no model 'other'"),
        ("GET", "/v2/models/fashion_mnist/versions/2.0.0", b"", 404, "no active version '2.0.0'"),
        ("POST", "/v2/models/other/infer", b"{}", 404, "no model 'other'"),
        ("POST", "/v2/models/fashion_mnist/versions/9.0.0/infer", b"{}", 404, "no active version"),
        ("GET", INFER, b"", 405, "takes POST, not GET"),
        ("DELETE", "/v2", b"", 405, "takes GET, HEAD, not DELETE"),
        ("GET", "/admin/status", b"", 404, "no such path"),
        ("POST", "/v2/repository/models/fashion_mnist/load", b"", 400, "cannot load models"),
        ("POST", "/v2/repository/models/fashion_mnist/unload", b"", 400, "cannot unload models"),
        ("POST", "/v2/repository/models/fashion_mnist/burn", b"", 404, "no such path"),
        ("POST", "/v2/repository/index", b"[]", 400, "Expected `object`, got `array`"),
        ("GET", "/v2/repository/index", b"", 405, "takes POST, not GET"),
        ("POST", "/v2/models/fashion_mnist/config", b"", 405, "takes GET, HEAD, not POST"),
        ("GET", "/v2/models/other/config", b"", 404, "no model 'other'"),
        ("GET", "/v2/models/other/stats", b"", 404, "no model 'other'"),
        ("POST", "/v2/systemsharedmemory/region/r/register", b"{}", 501, "not enabled here"),
        ("GET", "/v2/systemsharedmemory/region/r/status", b"", 404, "no shared memory region 'r'"),
        ("GET", "/v2/systemsharedmemory/unregister", b"", 405, "takes POST"),
        ("POST", "/v2/systemsharedmemory/register", b"{}", 404, "no such path"),
        ("POST", "/v2/cudasharedmemory/region/r/register", b"{}", 501, "CUDA devices"),
        ("GET", "/v2/cudasharedmemory/region/r/status", b"", 404, "no shared memory region 'r'"),
        ("POST", INFER, b"", 400, "no JSON"),
        ("POST", INFER, b"{", 400, "not an inference request"),
        ("POST", INFER, json.dumps({"inputs": [_IMAGE, _IMAGE]}).encode(), 400, "given twice"),
        (
            "POST",
            INFER,
            json.dumps({"inputs": [{**_IMAGE, "shape": [1, 28, 28]}]}).encode(),
            400,
            "input 'image' is FP32[1,28,28], the model takes FP32[-1,1,28,28] (-1: any size)",
        ),
        (
            "POST",
            INFER,
            json.dumps({"inputs": [{**_IMAGE, "datatype": "FP64"}]}).encode(),
            400,
            "is FP64[1,1,28,28], the model takes FP32",
        ),
        (
            "POST",
            INFER,
            json.dumps({"inputs": [_IMAGE], "outputs": [{"name": "label"}]}).encode(),
            400,
            "gives the outputs ['logits']",
        ),
    ],
)
def test_errors_say_what_is_wrong_and_the_connection_survives(
    client: RawClient, runtime: RunningRuntime, case: tuple[str, str, bytes, int, str]
) -> None:
    method, path, body, status, complaint = case
    response = client.call(method, path, body)
    assert response.status == status
    assert complaint in response.error
    assert ("allow" in response.headers) == (status == 405)
    assert client.call("GET", "/v2/health/live").status == 200
    assert "traceback" not in runtime.log_text()


def test_head_answers_without_a_body(client: RawClient) -> None:
    whole = client.call("GET", "/v2/models/fashion_mnist")
    head = client.call("HEAD", "/v2/models/fashion_mnist")
    assert (head.status, head.headers, head.body) == (200, whole.headers, b"")
    assert client.call("HEAD", "/v2/models/other").status == 404
    assert client.call("HEAD", INFER).status == 405


def test_not_a_number_travels_as_binary_data_only(client: RawClient) -> None:
    image, _ = golden("fp32")[0]
    broken = Tensor(
        name="image", datatype=image.datatype, shape=image.shape, data=b"\xff" * len(image.data)
    )
    _, answered = infer(client, broken)
    assert all(number != number for number in answered)  # noqa: PLR0124 (this is what NaN means)
    body, length = v2_request.encode([broken], binary=[True])
    response = client.call("POST", INFER, body, header_length=length)
    assert response.status == 400
    assert "ask for it as binary data" in response.error


@pytest.mark.parametrize(
    "case",
    [
        ("br", b"abc", 415, "Content-Encoding 'br' is not understood here; known are gzip, def"),
        ("gzip, gzip", b"abc", 415, "is not understood here"),
        ("gzip", b"abc", 400, "the body is not gzip"),
        ("gzip", gzip.compress(b"{}")[:-1], 400, "cut short"),
        ("gzip", gzip.compress(b"{}") + b"more", 400, "4 bytes follow the compressed body"),
        ("deflate", gzip.compress(b"{}"), 400, "the body is not deflate"),
        ("deflate", zlib.compress(b"{}"), 400, "not an inference request"),
        ("GZIP", gzip.compress(b"{}"), 400, "not an inference request"),
        ("identity", b"{}", 400, "not an inference request"),
        ("gzip", gzip.compress(bytes(1_000_001)), 413, "larger than 1000000 bytes once it is"),
        ("gzip", gzip.compress(bytes(10**8)), 413, "larger than 1000000 bytes once it is"),
    ],
)
def test_compressed_bodies_that_are_none_are_refused(
    client: RawClient, runtime: RunningRuntime, case: tuple[str, bytes, int, str]
) -> None:
    encoding, body, status, complaint = case
    client.socket.sendall(
        f"POST {INFER} HTTP/1.1\r\nContent-Encoding: {encoding}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    response = client.receive()
    assert (response.status, complaint in response.error) == (status, True), response.error
    assert client.call("GET", "/v2/health/live").status == 200
    assert "traceback" not in runtime.log_text()


def test_other_bodies_are_not_compressed(client: RawClient) -> None:
    body = gzip.compress(b"{}")
    head = f"POST /v2/repository/index HTTP/1.1\r\nContent-Length: {len(body)}\r\n"
    client.socket.sendall(f"{head}Content-Encoding: gzip\r\n\r\n".encode() + body)
    response = client.receive()
    assert (response.status, "send this body as it is" in response.error) == (415, True)


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("deflate, gzip;q=0.5", "deflate"),
        ("br, zstd", None),
        ("gzip;q=0", None),
        ("gzip;q=nonsense", None),
        ("identity, gzip;q=0.1", None),
        ("*", None),
    ],
)
def test_large_answers_are_compressed_where_the_caller_accepts_it(
    client: RawClient, accepted: str, encoding: str | None
) -> None:
    body, length = v2_request.encode([batch(100)], binary=[True], fields=BINARY_OUTPUT)
    client.socket.sendall(
        f"POST {INFER} HTTP/1.1\r\nAccept-Encoding: {accepted}\r\n"
        f"Inference-Header-Content-Length: {length}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    response = client.receive()
    assert response.headers.get("content-encoding") == encoding
    plain = response.body
    if encoding is not None:
        plain = gzip.decompress(plain) if encoding == "gzip" else zlib.decompress(plain)
    split = int(response.headers["inference-header-content-length"])
    _, outputs = v2_request.decode(plain, split)
    assert len(outputs["logits"]) == 4 * 10 * 100


def test_a_raw_body_is_the_only_input(client: RawClient) -> None:
    image, expected = golden("fp32")[0]
    response = client.call("POST", INFER, bytes(image.data), header_length=0)
    assert logits(response) == pytest.approx(expected, abs=1e-3)
    two = client.call("POST", INFER, bytes(image.data) * 2, header_length=0)
    assert len(logits(two)) == 20
    wrong = client.call("POST", INFER, bytes(image.data)[1:], header_length=0)
    assert (wrong.status, "send an inference request object" in wrong.error) == (400, True)


def test_the_highest_classes_instead_of_values(client: RawClient) -> None:
    image, expected = golden("fp32")[0]
    best = sorted(range(10), key=lambda index: -expected[index])[:3]
    fields = {"outputs": [{"name": "logits", "parameters": {"classification": 3}}]}
    body, length = v2_request.encode([image], binary=[True], fields=fields)
    answer: Any = client.call("POST", INFER, body, header_length=length).json
    (output,) = answer["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [1, 3])
    for index, element in zip(best, output["data"], strict=True):
        value, found, label = element.split(":")
        assert (int(found), label) == (index, f"class-{index}")
        assert float(value) == pytest.approx(expected[index], abs=1e-3)
