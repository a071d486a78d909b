"""Kept answers: exact, bounded, and never those of another release."""

import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.inference.backends.catalog import Catalog
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.execution_policy import ExecutionPolicy
from edge_agent.inference.inference_request import InferenceRequest
from edge_agent.inference.memory_budget import MemoryPolicy
from edge_agent.inference.release_loader import ReleaseLoader
from edge_agent.inference.response_cache import MAX_INPUT_BYTES, ResponseCache
from edge_agent.inference.scheduling import QueueLimits
from edge_agent.inference.tensors import Tensor
from edge_agent.state_dir import StateDir
from fleet_protocol.manifest import Datatype
from tests.unit.edge_agent.inference.gated_backend import GatedBackend, gated_release


def tensor(data: bytes, *shape: int) -> Tensor:
    return Tensor(name="x", datatype=Datatype.UINT8, shape=list(shape or [len(data)]), data=data)


def put(cache: ResponseCache, serial: int, given_bytes: bytes, answer: bytes) -> None:
    key = cache.key(serial, [tensor(given_bytes)])
    assert key is not None
    cache.put(key, [tensor(answer)])


def get(cache: ResponseCache, serial: int, given_bytes: bytes, *shape: int) -> bytes | None:
    key = cache.key(serial, [tensor(given_bytes, *shape)])
    assert key is not None
    found = cache.get(key)
    return None if found is None else bytes(found[0].data)


def test_only_the_same_bytes_and_shape_of_the_same_release_are_known() -> None:
    cache = ResponseCache(10_000)
    put(cache, 1, b"abcd", b"answer")
    assert get(cache, 1, b"abcd") == b"answer"
    assert get(cache, 1, b"abce") is None
    assert get(cache, 1, b"abcd", 2, 2) is None
    assert get(cache, 2, b"abcd") is None
    cache.forget(2)
    assert get(cache, 1, b"abcd") == b"answer"
    cache.forget(1)
    assert get(cache, 1, b"abcd") is None
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_large_inputs_are_not_looked_up() -> None:
    cache = ResponseCache(1 << 30)
    assert cache.key(1, [tensor(bytes(MAX_INPUT_BYTES))]) is not None
    assert cache.key(1, [tensor(bytes(MAX_INPUT_BYTES + 1))]) is None


def test_who_was_not_asked_for_longest_makes_room() -> None:
    cache = ResponseCache(2 * 700)
    put(cache, 1, b"a", b"1")
    put(cache, 1, b"b", b"2")
    assert get(cache, 1, b"a") == b"1"
    put(cache, 1, b"c", b"3")
    assert (get(cache, 1, b"a"), get(cache, 1, b"b"), get(cache, 1, b"c")) == (b"1", None, b"3")
    put(cache, 1, b"d", bytes(5000))
    assert get(cache, 1, b"d") is None
    assert len(cache) == 2


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=600), st.binary(max_size=600))))
def test_it_stays_within_its_budget_and_tells_no_lies(
    entries: list[tuple[int, bytes, bytes]],
) -> None:
    cache = ResponseCache(5000)
    first: dict[tuple[int, bytes], bytes] = {}
    for serial, given_bytes, answer in entries:
        found = get(cache, serial, given_bytes)
        assert found in (None, first.get((serial, given_bytes)))
        if found is None:
            first[serial, given_bytes] = answer
            put(cache, serial, given_bytes, answer)
        assert cache.size_bytes <= 5000


async def test_a_known_answer_runs_nothing_and_dies_with_its_release(tmp_path: Path) -> None:
    state, backend, cache = StateDir(tmp_path), GatedBackend(), ResponseCache(10_000)
    state.create()
    state.blob("0" * 64).touch()
    plane = DataPlane(
        loader=ReleaseLoader(
            state=state, epoch="e", catalog=Catalog([backend]), clock=time.perf_counter
        ),
        clock=time.perf_counter,
        workers=1,
        policy=ExecutionPolicy(limits=lambda _: QueueLimits(), memory=MemoryPolicy(), cache=cache),
    )
    question = Tensor(name="x", datatype=Datatype.FP32, shape=[1], data=b"\0\0\x80?")
    query = InferenceRequest(id="", inputs=[question], outputs=None, binary_output=False)

    async def ask(*, in_thread: bool = False, counted: bool = True) -> list[Tensor]:
        call = plane.begin(plane.active("m"), started=time.perf_counter(), counted=counted)
        with call:
            feed = call.feed(query)
            if call.runs_inline(feed) and not in_thread:
                return call.run(feed)
            return await plane.run_in_thread(call, feed)

    await plane.load(gated_release())
    plane.activate("m", "1.0.0")
    one = plane.active("m")
    backend.shut()
    backend.let_pass()
    answers = [await ask(in_thread=True), await ask(), await ask()]
    assert [bytes(output.data) for (output,) in answers] == [b"\0\0\0@"] * 3
    assert len(backend.runs) == 1
    # What is not counted, as control's golden check, always runs.
    await ask(counted=False)
    assert len(backend.runs) == 2
    assert (one.statistics.cache_hits, one.statistics.cache_misses) == (2, 1)
    assert one.statistics.successes == 3
    await plane.load(gated_release("2.0.0"))
    plane.activate("m", "2.0.0")
    backend.shut()
    backend.let_pass()
    await ask()
    assert len(backend.runs) == 1
    assert await plane.unload("m", "1.0.0") == 1
    assert len(cache) == 1
    assert await plane.close(10)
    assert len(cache) == 0
