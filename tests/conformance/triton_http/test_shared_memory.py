"""System shared memory with Triton's own client and helpers, and regions that misbehave."""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, serialize_byte_tensor
from tritonclient.utils import shared_memory as regions

from tests.conformance.triton_http.conftest import IMAGE_VALUES

Array = NDArray[np.generic]
MakeRegion = Callable[[str, int], regions.SharedMemoryRegion]


@pytest.fixture
def key() -> str:
    """A key that nobody uses."""
    return f"skerry_test_{secrets.token_hex(8)}"


@pytest.fixture
def region(client: triton.InferenceServerClient, key: str) -> Iterator[MakeRegion]:
    """Make regions of a size, registered under a name; the key is ``<key>_<name>``."""
    made: list[regions.SharedMemoryRegion] = []

    def make(name: str, size: int) -> regions.SharedMemoryRegion:
        handle = regions.create_shared_memory_region(name, f"{key}_{name}", size, create_only=True)
        made.append(handle)
        client.register_system_shared_memory(name, f"{key}_{name}", size)
        return handle

    yield make
    client.unregister_system_shared_memory()
    for handle in made:
        path = Path("/dev/shm") / f"{key}_{handle._triton_shm_name}"  # noqa: S108 (Triton's client names it so)
        path.touch()  # a test may have removed it, and the helper insists on removing it too
        regions.destroy_shared_memory_region(handle)


def in_region(
    shape: list[int], datatype: str, *place: int | str, name: str = "x"
) -> triton.InferInput:
    """Return an input that lies in a region; the place is region, size and perhaps offset."""
    return triton.InferInput(name, shape, datatype).set_shared_memory(*place)


def out_region(region_name: str, size: int, offset: int = 0) -> triton.InferRequestedOutput:
    wanted = triton.InferRequestedOutput("y")
    wanted.set_shared_memory(region_name, size, offset)
    return wanted


@pytest.mark.parametrize(
    ("family", "shape"),
    [("image", (1, IMAGE_VALUES)), ("large", (1, 250_000)), ("large", (3, 250_000))],
)
def test_tensors_in_and_out(
    client: triton.InferenceServerClient, region: MakeRegion, family: str, shape: tuple[int, int]
) -> None:
    sent = np.random.default_rng(0).random(shape, np.float32)
    size, offset = sent.nbytes, 64
    source, target = region("in", size + offset), region("out", size + offset)
    for number in range(3):
        regions.set_shared_memory_region(source, [sent + number], offset=offset)
        answer = client.infer(
            family,
            [in_region(list(shape), "FP32", "in", size, offset)],
            outputs=[out_region("out", size, offset)],
        )
        output = answer.get_output("y")
        assert output == {"name": "y", "datatype": "FP32", "shape": list(shape)}
        found = regions.get_contents_as_numpy(target, np.float32, shape, offset=offset)
        assert np.array_equal(found, sent + number)


def test_one_region_for_both_and_other_ways_beside_it(
    client: triton.InferenceServerClient, region: MakeRegion
) -> None:
    a, b = np.arange(4, dtype=np.int32).reshape(1, 4), np.full((1, 4), 5, np.int32)
    handle = region("both", 32)
    regions.set_shared_memory_region(handle, [a])
    binary = triton.InferInput("b", [1, 4], "INT32").set_data_from_numpy(b)
    wanted = triton.InferRequestedOutput("sum")
    wanted.set_shared_memory("both", 16, 16)
    client.infer(
        "adder", [in_region([1, 4], "INT32", "both", 16, name="a"), binary], outputs=[wanted]
    )
    found = regions.get_contents_as_numpy(handle, np.int32, (1, 4), offset=16)
    assert np.array_equal(found, a + b)
    answer = client.infer("adder", [in_region([1, 4], "INT32", "both", 16, name="a"), binary])
    assert np.array_equal(answer.as_numpy("sum"), a + b)


def test_byte_strings(client: triton.InferenceServerClient, region: MakeRegion) -> None:
    sent = np.array([[b"", b"a", "é".encode(), b"x" * 99]], dtype=np.object_)
    packed = serialize_byte_tensor(sent)
    size = len(packed.item())
    source, target = region("in", size), region("out", 200)
    regions.set_shared_memory_region(source, [packed])
    client.infer(
        "echo_bytes",
        [in_region([1, 4], "BYTES", "in", size)],
        outputs=[out_region("out", 200)],
    )
    found = regions.get_contents_as_numpy(target, np.object_, [1, 4])
    assert found.tolist() == sent.tolist()


def test_status(client: triton.InferenceServerClient, region: MakeRegion, key: str) -> None:
    region("first", 100)
    region("second", 200)
    first = {"name": "first", "key": f"{key}_first", "offset": 0, "byte_size": 100}
    assert client.get_system_shared_memory_status("first") == [first]
    assert first in client.get_system_shared_memory_status()
    client.unregister_system_shared_memory("first")
    client.unregister_system_shared_memory("first")
    assert [one["name"] for one in client.get_system_shared_memory_status()] == ["second"]
    with pytest.raises(InferenceServerException, match="'first' is registered") as refusal:
        client.get_system_shared_memory_status("first")
    assert refusal.value.status() == "404"
    client.unregister_system_shared_memory()
    assert client.get_system_shared_memory_status() == []


@pytest.mark.parametrize(
    "case",
    [
        (("r", "nothing_of_that_name", 8), "400", "No such file"),
        (("r", "../etc/passwd", 8), "400", "is no key of a shared memory region"),
        (("r", "/../../etc/passwd", 8), "400", "is no key"),
        (("r", "/a/b", 8), "400", "is no key"),
        (("r", "..", 8), "400", "is no key"),
        (("r", "/", 8), "400", "is no key"),
        (("r", "", 8), "400", "length >= 1"),
        (("r", "a\0b", 8), "400", "is no key"),
        (("r", "x" * 255, 8), "400", r"name too long|is no key"),
        (("r", "KEY", 101), "400", "is smaller than the 101 bytes at offset 0.*has 100 bytes"),
        (("r", "KEY", 100, 1), "400", "is smaller than the 100 bytes at offset 1"),
        (("r", "KEY", 0), "400", ">= 1"),
        (("r", "KEY", -1), "400", ">= 1"),
        (("r", "KEY", 8, -8), "400", ">= 0"),
        (("r", "KEY", 2**40, 2**40), "400", "100000000 are free"),
        (("r", "KEY", 2**63), "400", "<= 1099511627776"),
        (("there", "KEY", 8), "409", "'there' is registered already"),
        (("x" * 201, "KEY", 8), "400", "1 to 200 characters"),
    ],
)
def test_regions_that_cannot_be_registered(
    client: triton.InferenceServerClient,
    region: MakeRegion,
    case: tuple[tuple[str, str, int], str, str],
) -> None:
    handle = region("there", 100)
    (name, key, *sizes), status, complaint = case
    with pytest.raises(InferenceServerException, match=complaint) as refusal:
        client.register_system_shared_memory(name, handle._shm_key if key == "KEY" else key, *sizes)
    assert refusal.value.status() == status
    assert [one["name"] for one in client.get_system_shared_memory_status()] == ["there"]


def test_only_memory_is_registered(client: triton.InferenceServerClient, key: str) -> None:
    path = Path("/dev/shm") / key  # noqa: S108 (where POSIX shared memory lies)
    secret = path.with_suffix(".target")
    secret.write_bytes(bytes(100))
    try:
        path.symlink_to(secret)
        with pytest.raises(InferenceServerException, match="cannot open"):
            client.register_system_shared_memory("r", key, 8)
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(InferenceServerException, match="is not shared memory"):
            client.register_system_shared_memory("r", key, 8)
        path.unlink()
        path.mkdir()
        with pytest.raises(InferenceServerException, match="Is a directory"):
            client.register_system_shared_memory("r", key, 8)
        path.rmdir()
    finally:
        secret.unlink()


def test_their_number_is_bounded(client: triton.InferenceServerClient, region: MakeRegion) -> None:
    handle = region("first", 100)
    for number in range(127):
        client.register_system_shared_memory(f"r{number}", handle._shm_key, 100)
    with pytest.raises(InferenceServerException, match="128 shared memory regions are registered"):
        client.register_system_shared_memory("one_more", handle._shm_key, 100)


@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        (("other", 16, 0), "no shared memory region 'other' is registered"),
        (("r", 16, 1), "16 bytes at offset 1 lie outside"),
        (("r", 16, 2**40), "lie outside"),
        (("r", 8, 0), r"declares 8 bytes.*INT32\[1,4\] takes 16"),
    ],
)
def test_inputs_outside_of_a_region(
    client: triton.InferenceServerClient,
    region: MakeRegion,
    place: tuple[str, int, int],
    complaint: str,
) -> None:
    region("r", 16)
    with pytest.raises(InferenceServerException, match=complaint) as refusal:
        client.infer("echo_int32", [in_region([1, 4], "INT32", *place)])
    assert refusal.value.status() == "400"


@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        (("other", 16), "no shared memory region 'other' is registered"),
        (("out", 17), "17 bytes at offset 0 lie outside"),
        (("out", 16, 1), "16 bytes at offset 1 lie outside"),
        (("out", 15), "16 bytes do not fit into the 15 bytes"),
    ],
)
def test_outputs_that_do_not_fit(
    client: triton.InferenceServerClient,
    region: MakeRegion,
    place: tuple[str, int],
    complaint: str,
) -> None:
    region("out", 16)
    made = triton.InferInput("x", [1, 4], "INT32")
    made.set_data_from_numpy(np.zeros((1, 4), np.int32))
    with pytest.raises(InferenceServerException, match=complaint) as refusal:
        client.infer("echo_int32", [made], outputs=[out_region(*place)])
    assert refusal.value.status() == "400"


@pytest.mark.parametrize("shape", [[1, 250_000], [2, 250_000]])
@pytest.mark.parametrize("misfortune", ["shrinks", "shrinks to nothing", "is removed"])
def test_a_region_that_vanishes_is_an_error_and_no_crash(
    client: triton.InferenceServerClient,
    region: MakeRegion,
    key: str,
    misfortune: str,
    shape: list[int],
) -> None:
    size = shape[0] * 1_000_000
    region("r", size)
    path = Path("/dev/shm") / f"{key}_r"  # noqa: S108 (where POSIX shared memory lies)
    tensor = [in_region(shape, "FP32", "r", size)]
    client.infer("large", tensor)
    if misfortune == "is removed":
        path.unlink()
    else:
        os.truncate(path, 0 if misfortune == "shrinks to nothing" else size - 1)
    with pytest.raises(InferenceServerException, match=r"is smaller than|has been removed"):
        client.infer("large", tensor)
    made = triton.InferInput("x", shape, "FP32")
    made.set_data_from_numpy(np.zeros(shape, np.float32))
    with pytest.raises(InferenceServerException, match=r"is smaller than|has been removed"):
        client.infer("large", [made], outputs=[out_region("r", size)])
    assert client.is_server_ready()


def test_unregistering_in_the_middle_of_calls(
    client: triton.InferenceServerClient, region: MakeRegion, key: str
) -> None:
    size = 2_000_000
    region("r", size)
    answered = 0
    for _ in range(10):
        later = client.async_infer(
            "large",
            [in_region([2, 250_000], "FP32", "r", size)],
            outputs=[out_region("r", size)],
        )
        client.unregister_system_shared_memory("r")
        client.register_system_shared_memory("r", f"{key}_r", size)
        # Whether it came before or after is chance; that it is answered is not.
        with contextlib.suppress(InferenceServerException):
            later.get_result()
            answered += 1
    assert answered > 0
    assert client.is_server_ready()


def test_memory_of_cuda_devices(client: triton.InferenceServerClient) -> None:
    assert client.get_cuda_shared_memory_status() == []
    client.unregister_cuda_shared_memory()
    client.unregister_cuda_shared_memory("r")
    with pytest.raises(InferenceServerException, match="CUDA devices is not offered") as refusal:
        client.register_cuda_shared_memory("r", b"handle", 0, 8)
    assert refusal.value.status() == "501"
