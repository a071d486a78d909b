"""What is found in a made-up ``/proc``, ``/sys`` and ``/dev``."""

import os
from pathlib import Path

import pytest

from edge_agent import hardware
from edge_agent.hardware import DeviceKind, Roots


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    made = Roots(proc=tmp_path / "proc", sys=tmp_path / "sys", dev=tmp_path / "dev")
    for folder in (made.proc, made.sys, made.dev):
        folder.mkdir()
    return made


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("cpuinfo", "name", "features"),
    [
        (
            "processor\t: 0\nmodel name\t: Intel N100\nflags\t\t: fpu avx2 fma avx_vnni\n\n",
            "Intel N100",
            ["AVX2", "FMA", "AVX-VNNI"],
        ),
        (
            "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\nCPU part\t: 0xd0b\n",
            "",
            ["NEON", "NEON dot product", "NEON INT8 matrix"],
        ),
        ("", "", []),
    ],
)
def test_the_processor(roots: Roots, cpuinfo: str, name: str, features: list[str]) -> None:
    put(roots.proc / "cpuinfo", cpuinfo)
    here = hardware.look(roots)
    assert (here.cpu, here.cpu_features, here.devices) == (name, features, [])


def test_a_board_is_named_by_its_device_tree(roots: Roots) -> None:
    put(roots.proc / "cpuinfo", "Features\t: asimd\n")
    put(roots.proc / "device-tree/model", "Raspberry Pi 5 Model B\0")
    assert hardware.look(roots).cpu == "Raspberry Pi 5 Model B"


def test_an_edge_tpu_on_pcie_needs_its_driver(roots: Roots) -> None:
    put(roots.sys / "bus/pci/devices/0000:01:00.0/vendor", "0x1ac1\n")
    put(roots.sys / "bus/pci/devices/0000:01:00.0/device", "0x089a\n")
    (device,) = hardware.look(roots).devices
    assert (device.kind, device.where) == (DeviceKind.EDGE_TPU, "0000:01:00.0")
    assert "gasket" in device.problem
    put(roots.dev / "apex_0")
    (device,) = hardware.look(roots).devices
    assert (device.where, device.problem) == (str(roots.dev / "apex_0"), "")


@pytest.mark.parametrize("ids", [("1a6e", "089a"), ("18d1", "9302")])
def test_an_edge_tpu_on_usb(roots: Roots, ids: tuple[str, str]) -> None:
    folder = roots.sys / "bus/usb/devices/2-1"
    for name, text in (
        ("idVendor", ids[0]),
        ("idProduct", ids[1]),
        ("busnum", "2"),
        ("devnum", "7"),
    ):
        put(folder / name, f"{text}\n")
    put(roots.dev / "bus/usb/002/007")
    (device,) = hardware.look(roots).devices
    assert device.name == "Coral Edge TPU (USB)"
    assert device.where == str(roots.dev / "bus/usb/002/007")
    assert device.problem == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_a_device_that_may_not_be_opened_says_so(roots: Roots) -> None:
    put(roots.dev / "apex_0").chmod(0)
    (device,) = hardware.look(roots).devices
    assert "no permission" in device.problem


def test_nvidia_with_and_without_driver(roots: Roots) -> None:
    put(roots.sys / "bus/pci/devices/0000:65:00.0/vendor", "0x10de\n")
    put(roots.sys / "bus/pci/devices/0000:65:00.0/class", "0x030200\n")
    (device,) = hardware.look(roots).devices
    assert "kernel driver" in device.problem
    put(
        roots.proc / "driver/nvidia/gpus/0000:65:00.0/information",
        "Model: \t\t NVIDIA L4\nIRQ: 5\nDevice Minor: \t 0\n",
    )
    put(roots.dev / "nvidia0")
    (device,) = hardware.look(roots).devices
    assert (device.name, device.problem) == ("NVIDIA L4", "")


def test_a_jetson(roots: Roots) -> None:
    put(roots.proc / "device-tree/compatible", "nvidia,p3768\0nvidia,tegra234\0")
    put(roots.proc / "device-tree/model", "NVIDIA Jetson Orin Nano\0")
    put(roots.dev / "nvgpu")
    (device,) = hardware.look(roots).devices
    assert (device.kind, device.name) == (DeviceKind.NVIDIA_GPU, "NVIDIA Jetson Orin Nano")
    assert device.problem == ""


def test_intel(roots: Roots) -> None:
    put(roots.sys / "class/drm/renderD128/device/vendor", "0x8086\n")
    put(roots.sys / "class/drm/renderD129/device/vendor", "0x1002\n")
    put(roots.sys / "class/accel/accel0/device/vendor", "0x8086\n")
    put(roots.dev / "dri/renderD128")
    kinds = {device.kind: device for device in hardware.look(roots).devices}
    assert kinds.keys() == {DeviceKind.INTEL_GPU, DeviceKind.INTEL_NPU}
    assert kinds[DeviceKind.INTEL_GPU].problem == ""
    assert "does not exist" in kinds[DeviceKind.INTEL_NPU].problem


def test_the_fingerprint_changes_with_the_hardware(roots: Roots) -> None:
    put(roots.proc / "cpuinfo", "model name\t: one\n")
    before = hardware.look(roots).fingerprint()
    assert hardware.look(roots).fingerprint() == before
    put(roots.dev / "apex_0")
    assert hardware.look(roots).fingerprint() != before


def test_this_machine_can_be_looked_at() -> None:
    assert hardware.look().cpu_count >= 1
