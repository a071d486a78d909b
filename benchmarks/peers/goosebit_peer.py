"""gooseBit 0.2.12 on one core, with registered devices that poll it: nothing is to be updated."""

import os
import subprocess
from pathlib import Path

import urllib3

from benchmarks.measuring.environments import environment
from benchmarks.measuring.server_process import ServerProcess, free_port
from benchmarks.peers.installed import program


class GooseBit:
    """The server with its defaults: uvicorn, SQLite, one process, no device tokens, no TLS."""

    def __init__(self, folder: Path, devices: int) -> None:
        """Make its database; nothing runs until `start`."""
        folder.mkdir()
        self._folder = folder
        self._devices = [f"device-{number:05d}" for number in range(devices)]
        self._python = environment("goosebit")
        self.port = free_port()
        self._environment = {
            "GOOSEBIT_DB_URI": f"sqlite://{folder / 'goosebit.sqlite3'}",
            "GOOSEBIT_ARTIFACTS_DIR": str(folder / "artifacts"),
        }
        subprocess.run(
            [self._python, program("goosebit_schema")],
            check=True,
            env=os.environ | self._environment,
        )

    @property
    def requests(self) -> list[bytes]:
        """A poll of each device."""
        return [
            f"GET {self._path(device)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            for device in self._devices
        ]

    def start(self, core: int) -> ServerProcess:
        """Start it on one core and register the devices."""
        process = ServerProcess(
            [
                *("taskset", "--cpu-list", str(core), str(self._python), "-m", "uvicorn"),
                *("goosebit:app", "--host", "127.0.0.1", "--port", str(self.port)),
            ],
            log=self._folder / "server.log",
            environment=self._environment,
        )
        with urllib3.PoolManager(retries=False) as pool:
            process.wait_until(lambda: self._register(pool, self._devices[0]))
            for device in self._devices:
                self._register(pool, device)
        return process

    def _register(self, pool: urllib3.PoolManager, device: str) -> bool:
        url = f"http://127.0.0.1:{self.port}{self._path(device)}"
        data = {"hw_boardname": "default", "hw_revision": "1.0", "sw_version": "1.0"}
        try:
            pool.request("GET", url)
            answer = pool.request("PUT", f"{url}/configData", json={"data": data})
        except urllib3.exceptions.HTTPError:
            return False
        return answer.status == 200  # noqa: PLR2004 (200 OK)

    @staticmethod
    def _path(device: str) -> str:
        return f"/DEFAULT/controller/v1/{device}"
