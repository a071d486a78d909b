"""The process that holds one contender: it runs calls when told to, and says how long each took.

Each line on standard input is an order, each line on standard output an answer. What libraries
print goes to standard error.
"""

import math
import os
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

import msgspec

from edge_agent.errors import AgentError
from edge_agent.inference.backends import catalog
from edge_agent.inference.backends.base import Model
from edge_agent.inference.tensors import Tensor, size_bytes
from edge_agent.lean_memory import give_back, limit_arenas
from edge_agent.runtime_api import ActiveRelease
from fleet_protocol import bytes_tensor
from fleet_protocol.manifest import ITEM_BYTES, Datatype, GoldenTensor, TensorSpec

MODULE = "edge_agent.bench.worker"
_WARM_UP_CALLS = 3
_FLOATS = {Datatype.FP16: "e", Datatype.FP32: "f", Datatype.FP64: "d"}


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The first order: what to load.

    Attributes:
        inputs: of a call; empty makes numbers up.
    """

    path: str
    release: ActiveRelease
    inputs: list[GoldenTensor]
    threads: int
    edgetpu_library: str = ""


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to a job.

    Attributes:
        problem: why it could not be loaded; empty if it was.
        call_s: of the fastest of the first calls.
        resident_bytes: of the whole process after them.
    """

    problem: str = ""
    load_s: float = 0.0
    call_s: float = 0.0
    resident_bytes: int = 0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Any further order: so many calls one after the other, or as many as fit into a time."""

    calls: int = 0
    seconds: float = 0.0


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to an order.

    Attributes:
        seconds: of each call, one after the other.
        calls_per_s: with as many at once as the model makes use of.
    """

    seconds: list[float] = []
    calls_per_s: float = 0.0


def main() -> int:
    """Serve orders until standard input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    limit_arenas()
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    began = time.perf_counter()
    try:
        model, feed = _load(job)
        loaded = time.perf_counter() - began
        fastest = min(_timed(model, feed, _WARM_UP_CALLS))
    except AgentError as error:
        _say(answers, Loaded(problem=str(error)))
        return 1
    give_back()
    _timed(model, feed, 1)
    _say(answers, Loaded(load_s=loaded, call_s=fastest, resident_bytes=_resident_bytes()))
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=Order)
        try:
            if order.calls:
                _say(answers, Done(seconds=_timed(model, feed, order.calls)))
            else:
                _say(answers, Done(calls_per_s=_throughput(model, feed, order.seconds)))
        except AgentError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    return 0


def _load(job: Job) -> tuple[Model, list[Tensor]]:
    library = Path(job.edgetpu_library) if job.edgetpu_library else None
    backends = catalog.installed(threads=job.threads, edgetpu_library=library)
    release = job.release
    model = backends.named(release.backend).load(Path(job.path), release)
    feed = [
        Tensor(name=given.name, datatype=given.datatype, shape=given.shape, data=given.data())
        for given in job.inputs
    ] or [made_up(spec) for spec in release.inputs]
    return model, feed


def made_up(spec: TensorSpec) -> Tensor:
    """Return a wave, or short words: zeros would let some kernels take short cuts."""
    import array  # noqa: PLC0415 (only where golden inputs are missing)
    import struct  # noqa: PLC0415 (for the same reason)

    shape = [max(size, 1) for size in spec.shape]
    size = size_bytes(spec.datatype, shape)
    if spec.datatype is Datatype.BYTES:
        data = bytes_tensor.pack(f"word {at}".encode() for at in range(math.prod(shape)))
    elif spec.datatype is Datatype.FP16:
        data = b"".join(struct.pack("<e", math.sin(at)) for at in range(size // 2))
    elif spec.datatype in _FLOATS:
        values: array.array[float] = array.array(_FLOATS[spec.datatype])
        values.extend(math.sin(at) for at in range(size // values.itemsize))
        data = values.tobytes()
    else:
        # Small numbers: integers may be places in a table, or lengths.
        item = ITEM_BYTES[spec.datatype]
        data = b"".join((at % 2).to_bytes(item, "little") for at in range(size // item))
    return Tensor(name=spec.name, datatype=spec.datatype, shape=shape, data=data)


def _timed(model: Model, feed: list[Tensor], calls: int) -> list[float]:
    clock, run = time.perf_counter, model.run
    seconds = []
    for _ in range(calls):
        before = clock()
        run(feed)
        seconds.append(clock() - before)
    return seconds


def _throughput(model: Model, feed: list[Tensor], seconds: float) -> float:
    at_once = min(model.max_concurrent_runs or os.cpu_count() or 1, os.cpu_count() or 1)
    until = time.perf_counter() + seconds
    counts = [0] * at_once

    def work(mine: int) -> None:
        while time.perf_counter() < until:
            model.run(feed)
            counts[mine] += 1

    began = time.perf_counter()
    threads = [threading.Thread(target=work, args=(at,)) for at in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


def _say(answers: BinaryIO, what: msgspec.Struct) -> None:
    answers.write(msgspec.json.encode(what) + b"\n")
    answers.flush()


def _resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
