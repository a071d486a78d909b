"""Inference with Triton's HTTP client: every datatype, every way that data travel."""

from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from fleet_protocol.manifest import Datatype
from tests.conformance.triton_http.conftest import MAX_REQUEST_BYTES
from tests.integration.runtime.reference_calls import golden

Array = NDArray[Any]
_JSON_DATATYPES = [datatype for datatype in Datatype if datatype is not Datatype.FP16]


def sample(datatype: Datatype, rows: int = 3) -> Array:
    if datatype is Datatype.BYTES:
        texts = [b"", b"a", "é漢".encode(), b"x" * 300] * rows
        return np.array(texts, dtype=np.object_).reshape(rows, 4)
    values = np.arange(4 * rows).reshape(rows, 4)
    if datatype is Datatype.BOOL:
        odd: Array = values % 2 == 1
        return odd
    array: Array = (values * 1.25).astype(triton_to_np_dtype(datatype.value))
    return array


def given(name: str, array: Array, datatype: Datatype, *, binary: bool = True) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), datatype.value)
    return made.set_data_from_numpy(array, binary_data=binary)


def same(found: Array | None, sent: Array) -> bool:
    assert found is not None
    if sent.dtype == np.object_:
        texts = [text.encode() if isinstance(text, str) else text for text in found.ravel()]
        return found.shape == sent.shape and texts == sent.ravel().tolist()
    return found.dtype == sent.dtype and np.array_equal(found, sent)


@pytest.mark.parametrize("datatype", list(Datatype))
def test_binary_both_ways(client: triton.InferenceServerClient, datatype: Datatype) -> None:
    sent = sample(datatype)
    answer = client.infer(
        f"echo_{datatype.lower()}",
        [given("x", sent, datatype)],
        outputs=[triton.InferRequestedOutput("y", binary_data=True)],
        request_id="call 1",
    )
    assert same(answer.as_numpy("y"), sent)
    response = answer.get_response()
    assert (response["id"], response["model_version"]) == ("call 1", "1.0.0")


@pytest.mark.parametrize("datatype", _JSON_DATATYPES)
@pytest.mark.parametrize("binary", [(True, False), (False, True), (False, False)])
def test_json_one_way_or_both(
    client: triton.InferenceServerClient, datatype: Datatype, binary: tuple[bool, bool]
) -> None:
    sent = sample(datatype)
    answer = client.infer(
        f"echo_{datatype.lower()}",
        [given("x", sent, datatype, binary=binary[0])],
        outputs=[triton.InferRequestedOutput("y", binary_data=binary[1])],
    )
    assert same(answer.as_numpy("y"), sent)


def test_without_named_outputs_all_come_binary(client: triton.InferenceServerClient) -> None:
    a, b = sample(Datatype.INT32), sample(Datatype.INT32) * 7
    answer = client.infer("adder", [given("b", b, Datatype.INT32), given("a", a, Datatype.INT32)])
    assert same(answer.as_numpy("sum"), a + b)
    assert "binary_data_size" in answer.get_output("sum")["parameters"]


def test_half_precision_in_json_is_refused_as_by_triton(
    client: triton.InferenceServerClient,
) -> None:
    sent = sample(Datatype.FP16)
    with pytest.raises(InferenceServerException, match="FP16 does not travel as JSON") as refusal:
        client.infer("echo_fp16", [given("x", sent, Datatype.FP16, binary=False)])
    assert refusal.value.status() == "400"
    with pytest.raises(InferenceServerException, match="ask for it as binary data"):
        client.infer(
            "echo_fp16",
            [given("x", sent, Datatype.FP16)],
            outputs=[triton.InferRequestedOutput("y", binary_data=False)],
        )


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("datatype", [Datatype.FP32, Datatype.BYTES])
def test_compression_both_ways(
    client: triton.InferenceServerClient, algorithm: str, datatype: Datatype
) -> None:
    sent = sample(datatype, rows=500)
    for binary in (True, False):
        answer = client.infer(
            f"echo_{datatype.lower()}",
            [given("x", sent, datatype, binary=binary)],
            outputs=[triton.InferRequestedOutput("y", binary_data=binary)],
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
        assert same(answer.as_numpy("y"), sent)


def test_many_calls_at_once(client: triton.InferenceServerClient) -> None:
    sent = [sample(Datatype.INT64) + number for number in range(50)]
    pending = [client.async_infer("echo_int64", [given("x", one, Datatype.INT64)]) for one in sent]
    for one, later in zip(sent, pending, strict=True):
        assert same(later.get_result().as_numpy("y"), one)


@pytest.mark.parametrize("rows", [1, 7])
def test_a_large_tensor_runs_beside_the_loop(
    client: triton.InferenceServerClient, rows: int
) -> None:
    sent = np.random.default_rng(0).random((rows, 250_000), np.float32)
    answer = client.infer("large", [given("x", sent, Datatype.FP32)])
    assert same(answer.as_numpy("y"), sent)


def test_classification(client: triton.InferenceServerClient) -> None:
    image, logits = golden("fp32")[0]
    pixels = np.frombuffer(image.data, np.float32).reshape(1, 1, 28, 28)
    answer = client.infer(
        "fashion_mnist",
        [given("image", np.concatenate([pixels, pixels]), Datatype.FP32)],
        outputs=[triton.InferRequestedOutput("logits", class_count=2)],
    )
    found = answer.as_numpy("logits")
    assert found.shape == (2, 2)
    best = sorted(range(10), key=lambda index: -logits[index])[:2]
    for row in found:
        fields = [element.decode().split(":") for element in row]
        assert [(int(index), label) for _, index, label in fields] == [
            (index, f"class-{index}") for index in best
        ]
        assert [float(value) for value, _, _ in fields] == pytest.approx(
            [logits[index] for index in best], abs=1e-3
        )


@pytest.mark.parametrize(
    ("datatype", "expected"),
    [
        (Datatype.INT32, [b"3:3", b"2:2", b"1:1", b"0:0"]),
        (Datatype.FP32, [b"3.750000:3", b"2.500000:2", b"1.250000:1", b"0.000000:0"]),
    ],
)
def test_classification_without_labels(
    client: triton.InferenceServerClient, datatype: Datatype, expected: list[bytes]
) -> None:
    wanted = triton.InferRequestedOutput("y", class_count=99)
    sent = sample(datatype, rows=1)
    answer = client.infer(
        f"echo_{datatype.lower()}", [given("x", sent, datatype)], outputs=[wanted]
    )
    assert answer.as_numpy("y").tolist() == [expected]


def test_classes_of_strings_are_refused(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="cannot be given as classes") as refusal:
        client.infer(
            "echo_bytes",
            [given("x", sample(Datatype.BYTES), Datatype.BYTES)],
            outputs=[triton.InferRequestedOutput("y", class_count=1)],
        )
    assert refusal.value.status() == "400"


@pytest.mark.parametrize(
    ("model", "version", "changes", "status", "complaint"),
    [
        ("other", "", {}, "404", "no model 'other' here; this device serves: adder"),
        ("echo_int32", "9.9.9", {}, "404", "no active version '9.9.9'"),
        ("echo_int32", "", {"name": "z"}, "400", r"takes the inputs \['x'\]"),
        ("echo_int32", "", {"datatype": Datatype.INT64}, "400", r"is INT64\[3,4\], the model"),
        ("echo_int32", "", {"rows": 0}, "400", "is empty"),
        ("echo_bytes", "", {"datatype": Datatype.BYTES, "junk": b"\xff"}, "400", "UTF-8"),
        ("large", "", {"junk": bytes(MAX_REQUEST_BYTES)}, "413", "runtime.max_request_bytes"),
    ],
)
def test_errors_are_raised_with_what_is_wrong(  # noqa: PLR0913, PLR0917 (a table's columns)
    client: triton.InferenceServerClient,
    model: str,
    version: str,
    changes: dict[str, object],
    status: str,
    complaint: str,
) -> None:
    datatype = Datatype(str(changes.get("datatype", Datatype.INT32)))
    array = sample(datatype, rows=int(str(changes.get("rows", 3))))
    if "junk" in changes:
        datatype = Datatype.BYTES
        array = np.array([[changes["junk"]] * 4], dtype=np.object_)
    with pytest.raises(InferenceServerException, match=complaint) as refusal:
        client.infer(
            model, [given(str(changes.get("name", "x")), array, datatype)], model_version=version
        )
    assert refusal.value.status() == status
    assert client.is_server_ready()


def test_raw_bodies(client: triton.InferenceServerClient) -> None:
    """The client has no call for them, but its connection and its reading of answers serve."""
    for family, body, expected in [
        ("echo_int32", sample(Datatype.INT32).tobytes(), sample(Datatype.INT32)),
        ("echo_fp16", sample(Datatype.FP16).tobytes(), sample(Datatype.FP16)),
    ]:
        headers = {"Inference-Header-Content-Length": "0"}
        response = client._post(f"v2/models/{family}/infer", body, headers, None)
        assert response.status_code == 200
        length = response.get("Inference-Header-Content-Length")
        answer = triton.InferResult.from_response_body(
            response.read(), header_length=None if length is None else int(length)
        )
        assert same(answer.as_numpy("y"), expected)
