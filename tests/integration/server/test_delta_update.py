"""A real device updates by delta from a real server: fewer bytes on the wire than the file has."""

import hashlib
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edge_agent import enroll
from edge_agent.state_dir import StateDir
from fleet_protocol import claims, manifest
from fleet_protocol.manifest import Accuracy, Manifest, Variant
from model_pipeline.model_folder import ModelFolder
from provisioning.claim_issue import ClaimIssuer
from tests.integration.server.running_server import RunningServer, eventually, serving
from tests.simulators.counted_wire import counted
from tests.unit.fleet_server.authority import (
    FAMILY,
    PASSPHRASE,
    Fleet,
    ReleaseFiles,
    signed_role,
    stored,
)
from tests.unit.fleet_server.upload_form import CONTENT_TYPE, form

DEVICE = "cam-01"
MODEL = Path(__file__).parents[3] / "models" / FAMILY
WEIGHTS = slice(131_887, 353_071)
"""The words of the largest tensor in the file, a layer's weights."""

CHANGED_BITS = 10
"""Of the mantissa's 23, as if the network had been trained on a little."""

SETTINGS = """\
[runtime]
port = 0

[control]
probation_s = 0.5
retry_initial_s = 0.1
retry_shared_initial_s = 0.2
retry_max_s = 1.0
"""


@pytest.fixture
def own_server(fleet: Fleet) -> Iterator[RunningServer]:
    yield from serving(fleet)


def trained_on(content: bytes) -> bytes:
    """Return the model with other low bits in its weights; it answers as before."""
    dice = random.Random(7)  # noqa: S311 (weights)
    words = (word >> CHANGED_BITS << CHANGED_BITS for (word,) in struct.iter_unpack("<I", content))
    changed = [word | dice.getrandbits(CHANGED_BITS) for word in words]
    return struct.pack(f"<{len(changed)}I", *changed)


def made(version: str, content: bytes) -> ReleaseFiles:
    """Return a release of the reference model, or of one that answers like it."""
    folder, file = ModelFolder(MODEL), stored(content)
    card = folder.variant("fp32")
    variant = Variant(
        name="fp32",
        file=card.file,
        format=card.format,
        precision=card.precision,
        accelerators=list(card.accelerators),
        length=file.length,
        sha256=file.sha256,
        accuracy=Accuracy(metric="top1", value=0.9, sample_count=100),
        memory_bytes=10_000_000,
        golden=folder.golden("fp32"),
    )
    described = Manifest(
        family=FAMILY,
        version=version,
        inputs=folder.card.inputs,
        outputs=folder.card.outputs,
        variants=[variant],
    )
    files = {manifest.MANIFEST_FILE: manifest.encode(described), card.file: content}
    return ReleaseFiles(FAMILY, version, files)


def publish(server: RunningServer, token: str, *releases: ReleaseFiles) -> None:
    """Publish the last release; those before it are published already."""
    role = signed_role(server.fleet.publisher(), *releases, version=len(releases) + 1)
    targets = [("targets", path, content) for path, content in releases[-1].by_path.items()]
    answer = server.request(
        "POST",
        "/api/v1/releases",
        token=token,
        body=form(("metadata", "role.json", role), *targets),
        headers={"Content-Type": CONTENT_TYPE},
    )
    assert answer.status == 201, answer.data


@contextmanager
def device(fleet: Fleet, folder: Path, port: int) -> Iterator[StateDir]:
    """Enrol a device that reaches the server through a port, and run its agent."""
    state = StateDir(folder / "device")
    issuer = ClaimIssuer(fleet.authority, passphrase=PASSPHRASE)
    claim = claims.decode(issuer.issue(DEVICE, now=datetime.now(UTC)))
    url = f"https://localhost:{port}"
    enroll.enroll(state=state, server_url=url, claim=claim, post=enroll.https_post)
    (state.root / "agent.toml").write_text(SETTINGS)
    agent = [sys.executable, "-m", "skerry", "agent", "run", "--state", str(state.root)]
    with (folder / "agent.log").open("wb") as log:
        process = subprocess.Popen(agent, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield state
    finally:
        process.terminate()
        process.wait(30)


def assign(server: RunningServer, token: str, version: str) -> None:
    """Assign a release and wait until the device says that it has committed to it."""
    wanted = {"family": FAMILY, "version": version, "devices": [DEVICE]}
    answer = server.request("PUT", "/api/v1/assignments", token=token, json=wanted)
    assert answer.status == 200, answer.data
    seen: dict[str, Any] = {}

    def committed() -> bool:
        view = server.request("GET", f"/api/v1/devices/{DEVICE}", token=token).json()
        seen.update(view["reported"] or {})
        running = [(one["version"], one["committed"]) for one in seen.get("running", [])]
        return running == [(version, True)]

    eventually(committed, lambda: str(seen))


def test_a_device_fetches_the_difference_and_commits(
    own_server: RunningServer, tmp_path: Path
) -> None:
    server = own_server
    token, old = server.api_token("admin"), (MODEL / f"{FAMILY}-fp32.onnx").read_bytes()
    new = old[: WEIGHTS.start] + trained_on(old[WEIGHTS]) + old[WEIGHTS.stop :]
    first, second = made("1.0.0", old), made("1.1.0", new)
    publish(server, token, first)
    with (
        counted(server.https_port) as wire,
        device(server.fleet, tmp_path, wire.port) as state,
    ):
        assign(server, token, "1.0.0")
        whole = wire.received
        assert whole > len(old)
        publish(server, token, first, second)
        eventually(lambda: list((server.fleet.data.root / "deltas").glob("*.delta")))
        assign(server, token, "1.1.0")
        update = wire.received - whole
        assert state.blob(hashlib.sha256(new).hexdigest()).read_bytes() == new
    log = (tmp_path / "agent.log").read_text()
    assert update < len(new) * 0.6, log
    assert "delta_refused" not in log
    assert "delta_not_used" not in log
