"""Triton's load generator over gRPC."""

from pathlib import Path

import pytest

from tests.conformance import load_generator
from tests.conformance.triton_grpc.conftest import Served

pytestmark = load_generator.installed


@pytest.mark.parametrize(
    "options",
    [["-m", "fashion_mnist", "--streaming"], ["-m", "adder", "--shared-memory", "system"]],
)
def test_it_runs(served: Served, tmp_path: Path, options: list[str]) -> None:
    assert load_generator.load(tmp_path, "-i", "grpc", "-u", served.tcp, *options) > 0
