"""The process of the server: whatever can be wrong is looked at first, and then it serves.

What a server is made of takes most of a start to load, so none of it is imported here: who
misspelt a setting is told at once.
"""

import argparse
import contextlib
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from fleet_protocol.errors import SkerryError
from fleet_server import listening, logs, settings
from fleet_server.data_dir import DataDir
from fleet_server.listening import Ports
from fleet_server.settings import ServerSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the server; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="fleet_server", description="The fleet server: API, broker, ingest and signer."
    )
    parser.add_argument("--data", type=Path, required=True, help="data directory")
    data = DataDir(parser.parse_args(arguments).data.absolute())
    try:
        data.check()
        _allow_files()
        config = settings.load(data.settings_file, os.environ)
        data.check_files(assignment_key=not config.assignment_keys)
        logs.configure(config.log_level)
        ports = listening.open_ports(config)
        data.lock()
        return _serve(data, config, ports)
    except SkerryError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 (for the person at the terminal)
        return 1


def _serve(data: DataDir, config: ServerSettings, ports: Ports) -> int:
    from fleet_server import migrate, serving  # noqa: PLC0415 (takes long; see above)

    uvloop.run(migrate.prepare(settings.database_url(config, data)))
    return uvloop.run(serving.serve(data, config, ports))


def _allow_files() -> None:
    """Let the process hold as many connections as the system permits it, and not the first 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
