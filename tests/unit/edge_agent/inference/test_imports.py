"""What the runtime process keeps out of its memory."""

import subprocess
import sys

_HEAVY = ("cryptography", "tuf", "securesystemslib", "paho", "joserfc", "typer", "rich", "pydantic",
          "fastapi", "sqlalchemy", "numpy", "onnxruntime", "urllib3", "http.client",
          "grpc", "google.protobuf")  # fmt: skip


def test_the_process_starts_without_heavy_libraries() -> None:
    program = (
        "import sys, edge_agent.inference.__main__\n"
        f"print([name for name in {_HEAVY!r} if name in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert loaded.stdout.strip() == "[]"
