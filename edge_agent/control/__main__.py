"""``python -m edge_agent.control --state DIR``: the control process."""

import asyncio
import logging
import os
import sys
from pathlib import Path

from edge_agent import identity, lasting_settings, log_ring, remote_settings, settings
from edge_agent.control.active_set import ActiveSetFile
from edge_agent.control.process import ControlProcess
from edge_agent.control.runtime_client import AdminSocket
from edge_agent.control.way_back import serve_what_is_committed
from edge_agent.lean_memory import limit_arenas
from edge_agent.pid_file import PidFile
from edge_agent.priority import yield_to_inference
from edge_agent.state_dir import StateDir
from edge_agent.store import StoreError
from fleet_protocol.errors import SkerryError
from fleet_protocol.log_format import JsonFormatter

_USAGE = """usage: python -m edge_agent.control --state DIR

The control process of a Skerry agent; `skerry agent run` starts it.
--state DIR  state directory of the device"""


def main() -> int:
    """Run the control process until it is told to stop; return the exit status."""
    match sys.argv[1:]:
        case ["--state", folder]:
            state = StateDir(Path(folder).absolute())
        case arguments:
            # By hand: argparse would stay in memory for one option.
            print(_USAGE, file=sys.stdout if arguments == ["--help"] else sys.stderr)
            return 0 if arguments == ["--help"] else 2
    yield_to_inference()
    limit_arenas(1)
    try:
        remote_settings.count_start(state.root)
        found = lasting_settings.read(state.root, os.environ, process="control", load=settings.load)
        chosen = found.settings.control
        _log_to_stderr(chosen.log_level)
        log_ring.keep(state.log, "control")
        if found.problem:
            logging.getLogger(__name__).error("settings_not_used", extra={"reason": found.problem})
        who = identity.load(state)
        state.create()
        lock = PidFile(state.pid_file("control"))
        try:
            asyncio.run(
                ControlProcess(
                    state=state, who=who, settings=chosen, settings_problem=found.problem
                ).run()
            )
        except StoreError:
            serve_what_is_committed(
                AdminSocket(state.admin_socket), ActiveSetFile(state.active_set)
            )
            raise
        lock.release()
    except SkerryError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except BaseExceptionGroup:
        logging.getLogger(__name__).exception("control_broken")
        return 1
    return 0


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("tuf").setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
