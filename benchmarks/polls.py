"""Devices that poll for their assignment: requests per second on one core, beside gooseBit.

The server has core 0, the load core 1. Both servers see the same kept-alive connections; Skerry
speaks TLS and verifies each device's token, gooseBit speaks plain HTTP as it does by default and
knows its devices by name. Turns alternate, so that both see the same machine.
"""

import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.measuring.poll_load import Load, Pollers
from benchmarks.peers.goosebit_peer import GooseBit
from benchmarks.peers.polled_fleet import PolledFleet, PollingDevice
from benchmarks.report import Row, at_least, figure

HOW = "make bench NAME=polls (64 connections, server on core 0, load on core 1)"
GOAL_PER_S = 5000

_CONNECTIONS = 64
_TURNS = 3
_TURN_S = 4.0
_FRESH_ROUNDS = 200
_SERVER_CORE, _LOAD_CORE = 0, 1


def run() -> list[Row]:
    """Measure both in turns."""
    before = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory(prefix="skerry-polls-") as folder, ExitStack() as stack:
        fleet = PolledFleet(Path(folder), _CONNECTIONS)
        goosebit = GooseBit(Path(folder) / "goosebit", _CONNECTIONS)
        ours_process = stack.enter_context(fleet.start(_SERVER_CORE))
        their_process = stack.enter_context(goosebit.start(_SERVER_CORE))
        os.sched_setaffinity(0, {_LOAD_CORE})
        stack.callback(os.sched_setaffinity, 0, before)
        ours = Pollers(fleet.port, count=_CONNECTIONS, tls=fleet.tls)
        theirs = Pollers(goosebit.port, count=_CONNECTIONS, tls=None)
        stack.callback(ours.close)
        stack.callback(theirs.close)

        def poll_ours(requests: Iterator[Sequence[bytes]]) -> Load:
            return ours.run(requests, status=b"304", pid=ours_process.pid, seconds=_TURN_S)

        def poll_theirs() -> Load:
            requests = itertools.repeat(goosebit.requests)
            return theirs.run(requests, status=b"200", pid=their_process.pid, seconds=_TURN_S)

        poll_ours(itertools.repeat(_held(fleet.devices)))  # the server learns who they are
        kept, fresh, peer = [], [], []
        for _ in range(_TURNS):
            kept.append(poll_ours(itertools.repeat(_held(fleet.devices))))
            fresh.append(poll_ours(_fresh(fleet.devices)))
            peer.append(poll_theirs())
    return _rows(kept, fresh, peer)


def _held(devices: Sequence[PollingDevice]) -> list[bytes]:
    return [device.request() for device in devices]


def _fresh(devices: Sequence[PollingDevice]) -> Iterator[Sequence[bytes]]:
    rounds = [
        [device.request(salt=salt) for device in devices] for salt in range(1, _FRESH_ROUNDS + 1)
    ]
    return iter(rounds)


def _rows(kept: list[Load], fresh: list[Load], peer: list[Load]) -> list[Row]:
    ours, theirs = _rate(kept), _rate(peer)
    return [
        at_least("polls answered with 304, token seen before", ours, "1/s", GOAL_PER_S, HOW),
        figure("polls answered with 304, each with a new token", _rate(fresh), "1/s", HOW),
        figure("polls that gooseBit 0.2.12 answers", theirs, "1/s", HOW),
        figure("Skerry to gooseBit", round(ours / theirs, 1), "times", HOW),
        figure("processor of Skerry's server", _cores(kept), "cores", HOW),
        figure("processor of gooseBit", _cores(peer), "cores", HOW),
        figure(
            "processor of the load on Skerry",
            round(median(load.generator_cores for load in kept), 2),
            "cores",
            HOW,
        ),
    ]


def _rate(loads: list[Load]) -> float:
    return round(median(load.per_second for load in loads))


def _cores(loads: list[Load]) -> float:
    return round(median(load.server_cores for load in loads), 2)
