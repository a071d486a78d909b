"""``python -m edge_agent.inference --state DIR``: the runtime process."""

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path
from types import ModuleType

from edge_agent import lasting_settings, log_ring, settings
from edge_agent.errors import AgentError
from edge_agent.lasting_settings import Lasting
from edge_agent.lean_memory import limit_arenas, reuse_freed_heap
from edge_agent.pid_file import PidFile
from edge_agent.settings import RuntimeSettings
from edge_agent.state_dir import StateDir
from fleet_protocol.log_format import JsonFormatter

logger = logging.getLogger("edge_agent.inference")

_SWITCH_INTERVAL_S = 0.0005
"""How long a thread of this process may keep the interpreter from one that waits for it."""


def main() -> int:
    """Run the process; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m edge_agent.inference",
        description="Serves the committed models of a state directory over the V2 protocol.",
    )
    parser.add_argument("--state", type=Path, required=True, help="the agent's state directory")
    state = StateDir(parser.parse_args().state.absolute())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    # numpy only carries tensors here; its matrix library would start threads and take memory.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # While a model is loaded beside the calls, Python's own 5 ms would be the calls' to wait.
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    limit_arenas()
    reuse_freed_heap()
    try:
        process, uvloop = _libraries()
        found = lasting_settings.read(
            state.root, os.environ, process="runtime", load=settings.load_runtime
        )
        logging.getLogger().setLevel(found.settings.log_level.upper())
        log_ring.keep(state.log, "runtime")
        if found.problem:
            logger.error("settings_not_used", extra={"reason": found.problem})
        state.create()
        pid_file = PidFile(state.pid_file("runtime"))
        process.remove_leftovers(state)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            complete = runner.run(_run(process, state, found))
            if not complete:
                # A thread is still inside a model and Python would wait for it without bound.
                logging.shutdown()
                os._exit(0)
        pid_file.release()
    except AgentError as error:
        logger.critical("runtime_cannot_run", extra={"reason": str(error)})
        return 1
    return 0


def _libraries() -> tuple[ModuleType, ModuleType]:
    """Import what the base install does not have.

    Raises:
        AgentError: a library is missing; the message names the extra.
    """
    try:
        import uvloop  # noqa: PLC0415 (late, so that its absence can be told)

        from edge_agent.inference import process  # noqa: PLC0415 (it imports uvloop, too)
    except ImportError as error:
        raise AgentError(
            f"the runtime needs {error.name}, which is not installed: pip install 'skerry[onnx]'"
        ) from error
    return process, uvloop


async def _run(process: ModuleType, state: StateDir, found: Lasting[RuntimeSettings]) -> bool:
    complete: bool = await process.RuntimeProcess(
        state=state,
        settings=found.settings,
        times=process.Times(),
        settings_problem=found.problem,
    ).run()
    return complete


if __name__ == "__main__":
    sys.exit(main())
