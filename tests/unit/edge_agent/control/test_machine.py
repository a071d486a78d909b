"""The machine's figures, from files as the kernel writes them."""

from pathlib import Path

import pytest

from edge_agent.control.machine import Machine

STAT = "cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 0 0 1 0 0 0 0 0 0\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "thermal").mkdir()
    return tmp_path / "proc"


def machine(proc: Path) -> Machine:
    return Machine(proc=proc, thermal=proc.parent / "thermal")


def test_figures_are_of_the_window(proc: Path) -> None:
    (proc / "stat").write_text(STAT.format(busy=100, idle=100))
    (proc / "meminfo").write_text("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\n")
    (proc / "42").mkdir()
    (proc / "42" / "statm").write_text("900 10 3 1 0 5 0\n")
    for zone, value in {"thermal_zone0": "41000", "thermal_zone1": "57500"}.items():
        (proc.parent / "thermal" / zone).mkdir()
        (proc.parent / "thermal" / zone / "temp").write_text(value + "\n")
    measured = machine(proc)
    (proc / "stat").write_text(STAT.format(busy=130, idle=170))
    window = measured.window(42)
    assert window.cpu_percent == 30.0
    assert window.memory_total_bytes == 1_024_000
    assert window.memory_used_bytes == 600 * 1024
    assert window.runtime_resident_bytes is not None
    assert window.runtime_resident_bytes % 10 == 0
    assert window.temperature_celsius == 57.5
    assert measured.available_memory() == 400 * 1024


def test_what_cannot_be_read_is_left_out(proc: Path) -> None:
    window = machine(proc).window(None)
    assert window.cpu_percent is None
    assert window.memory_used_bytes is None
    assert window.runtime_resident_bytes is None
    assert window.temperature_celsius is None


@pytest.mark.parametrize("text", ["", "x\n", "-300000", "999999"])
def test_an_implausible_temperature_is_left_out(proc: Path, text: str) -> None:
    (proc.parent / "thermal" / "thermal_zone0").mkdir()
    (proc.parent / "thermal" / "thermal_zone0" / "temp").write_text(text)
    assert machine(proc).window(None).temperature_celsius is None


def test_this_machine_can_be_measured() -> None:
    capabilities = Machine().capabilities(backends={"b": "1"}, accelerators=["cpu"])
    assert capabilities.cpu_count >= 1
    assert capabilities.memory_total_bytes
