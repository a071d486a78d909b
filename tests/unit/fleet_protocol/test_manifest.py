"""The manifest: what its types cannot say is checked, and every refusal names the culprit."""

import base64
import copy
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol import manifest
from fleet_protocol.errors import ProtocolError


def tensor(name: str, shape: list[int], size: int) -> dict[str, Any]:
    data = base64.b64encode(bytes(size)).decode()
    return {"name": name, "datatype": "FP32", "shape": shape, "data_base64": data}


PLAIN: dict[str, Any] = {
    "schema": 1,
    "family": "fashion_mnist",
    "version": "1.0.0",
    "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [
        {"name": "logits", "datatype": "FP32", "shape": [-1, 3], "labels": ["a", "b", "c"]}
    ],
    "variants": [
        {
            "name": "fp32",
            "file": "model.onnx",
            "format": "onnx",
            "precision": "fp32",
            "accelerators": ["cpu"],
            "length": 10,
            "sha256": "0" * 64,
            "accuracy": {"metric": "top1", "value": 0.9, "sample_count": 100},
            "memory_bytes": 1000,
            "golden": {
                "vectors": [
                    {
                        "inputs": [tensor("image", [1, 2], 8)],
                        "outputs": [tensor("logits", [1, 3], 12)],
                    }
                ],
                "tolerance": {"max_abs_error": 0.1},
            },
        }
    ],
}


def test_a_manifest_reads_back() -> None:
    read = manifest.decode(msgspec.json.encode(PLAIN))
    assert manifest.decode(manifest.encode(read)) == read


def variant(plain: dict[str, Any]) -> dict[str, Any]:
    first: dict[str, Any] = plain["variants"][0]
    return first


CASES: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("unknown field", lambda m: m.update(extra=1), "no field `extra`"),
    ("missing inputs", lambda m: m.pop("inputs"), "inputs"),
    ("traversal in a file", lambda m: variant(m).update(file="../x"), r"variants\[0\]\.file"),
    ("directory in a file", lambda m: variant(m).update(file="a/b"), r"variants\[0\]\.file"),
    ("file is the manifest", lambda m: variant(m).update(file="manifest.json"), "manifest.json"),
    ("two variants of a name", lambda m: m["variants"].append(variant(m)), "share the name"),
    (
        "two variants of a file",
        lambda m: m["variants"].append(variant(m) | {"name": "other"}),
        "share the file",
    ),
    ("two inputs of a name", lambda m: m["inputs"].append(m["inputs"][0]), "share the name"),
    ("short hash", lambda m: variant(m).update(sha256="0" * 63), "sha256"),
    ("length 0", lambda m: variant(m).update(length=0), "length"),
    ("no golden vectors", lambda m: variant(m)["golden"].update(vectors=[]), "vectors"),
    ("negative counter", lambda m: m.update(security_counter=-1), "security_counter"),
    ("accuracy above 1", lambda m: variant(m)["accuracy"].update(value=1.1), "accuracy"),
    (
        "golden tensor too short",
        lambda m: variant(m)["golden"]["vectors"][0]["inputs"][0].update(data_base64="AAAA"),
        "3 bytes where FP32",
    ),
    (
        "golden tensor not base64",
        lambda m: variant(m)["golden"]["vectors"][0]["inputs"][0].update(data_base64="!"),
        "base64",
    ),
    (
        "golden tensor of another name",
        lambda m: variant(m)["golden"]["vectors"][0]["inputs"][0].update(name="x"),
        "golden vector",
    ),
    (
        "golden tensor of another shape",
        lambda m: variant(m)["golden"]["vectors"][0]["inputs"][0].update(shape=[2]),
        "the manifest says",
    ),
]


@pytest.mark.parametrize(
    ("change", "message"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_a_wrong_manifest_is_refused_by_name(
    change: Callable[[dict[str, Any]], object], message: str
) -> None:
    plain = copy.deepcopy(PLAIN)
    change(plain)
    with pytest.raises(ProtocolError, match=message):
        manifest.decode(msgspec.json.encode(plain))


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        manifest.decode(payload)


def test_a_manifest_beyond_the_bound_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(ProtocolError, match="at most"):
        manifest.decode(b"{" + b" " * manifest.MAX_MANIFEST_BYTES)
