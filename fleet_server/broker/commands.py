"""`skerry server broker-config`: prepares a data directory for a Mosquitto beside the server."""

import os
from pathlib import Path

from fleet_server import settings
from fleet_server.broker import mosquitto
from fleet_server.broker.acceptance import Held
from fleet_server.broker.hand import Hand
from fleet_server.broker.mosquitto import Listening
from fleet_server.broker.mosquitto_files import MosquittoFiles
from fleet_server.broker.publication import Publication
from fleet_server.clock import utc_now
from fleet_server.data_dir import DataDir
from fleet_server.devices.authorities import DeviceCas
from fleet_server.errors import SetupError
from fleet_server.local_database import opened
from fleet_server.releases import durable_files


async def configure(root: Path) -> Path:
    """Write what Mosquitto needs, with the revocation list as the database has it now.

    Returns:
        The configuration with which to start Mosquitto.

    Raises:
        SetupError: the directory is no data directory, its database or disk cannot be used.
        UnavailableError: the database failed.
    """
    data = DataDir(root)
    async with opened(root) as database:
        config = settings.load(data.settings_file, os.environ)
        cas = DeviceCas(data.online)
        told = await Publication(database=database, cas=cas, clock=utc_now).current()
    files = MosquittoFiles.beside(data)
    listening = Listening(config.host, config.mqtt_port, config.max_connections)
    try:
        for folder in (data.broker, data.run):
            folder.mkdir(mode=0o700, exist_ok=True)
        Hand(files).write(Held.of(told.authorities))
        durable_files.write(files.access, mosquitto.access_list().encode())
        durable_files.write(files.configuration, mosquitto.configuration(files, listening).encode())
    except OSError as error:
        raise SetupError(f"cannot write below {data.root}: {error}") from error
    return files.configuration
