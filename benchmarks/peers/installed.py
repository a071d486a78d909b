"""Where the peers' environments and programs are, and whether a peer answers."""

from importlib.metadata import version
from pathlib import Path

from benchmarks.measuring.environments import environment
from benchmarks.measuring.http_client import HttpClient, HttpClientError


def peer_python(pins: str) -> Path:
    """Return the Python of a peer's environment, with ONNX Runtime in the project's own version."""
    return environment(pins, after=[f"onnxruntime=={version('onnxruntime')}"])


def program(name: str) -> Path:
    """Return a program that runs in a peer's environment."""
    return Path(__file__).parent / "programs" / f"{name}.py"


def answers(address: Path | int, path: str) -> bool:
    """Say whether a GET request succeeds."""
    try:
        client = HttpClient(address)
    except OSError:
        return False
    try:
        client.request(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    except (HttpClientError, OSError):
        return False
    finally:
        client.close()
    return True
