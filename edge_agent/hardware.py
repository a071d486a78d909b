"""What hardware is here, read from ``/proc``, ``/sys`` and ``/dev`` without touching a driver."""

import hashlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

_PCI_EDGE_TPU = ("0x1ac1", "0x089a")
_USB_EDGE_TPUS = {("1a6e", "089a"), ("18d1", "9302")}
"""Before and after the library has sent the device its firmware."""

_PCI_NVIDIA = "0x10de"
_PCI_INTEL = "0x8086"
_PCI_DISPLAY = "0x03"
"""First digits of the PCI class of display controllers."""

_CPU_FEATURES = {
    "avx2": "AVX2",
    "fma": "FMA",
    "f16c": "F16C",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "avx512_fp16": "AVX-512 FP16",
    "amx_int8": "AMX INT8",
    "amx_bf16": "AMX BF16",
    "neon": "NEON",
    "asimd": "NEON",
    "asimddp": "NEON dot product",
    "asimdhp": "NEON FP16",
    "i8mm": "NEON INT8 matrix",
    "bf16": "NEON BF16",
    "sve": "SVE",
}


class DeviceKind(StrEnum):
    """Kinds of accelerators that a backend may use."""

    EDGE_TPU = "edgetpu"
    NVIDIA_GPU = "nvidia_gpu"
    INTEL_GPU = "intel_gpu"
    INTEL_NPU = "intel_npu"


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One accelerator beside the CPU.

    Attributes:
        where: bus address or device node, for a person.
        problem: why this process cannot open it; empty where it can.
    """

    kind: DeviceKind
    name: str
    where: str
    problem: str = ""


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """What inference depends on.

    Attributes:
        machine: as ``uname -m`` has it.
        cpu: name of the processor.
        cpu_features: instructions that inference libraries use.
    """

    machine: str
    cpu: str
    cpu_count: int
    cpu_features: list[str]
    devices: list[Device]

    def of_kind(self, kind: DeviceKind) -> list[Device]:
        """Return the accelerators of a kind."""
        return [device for device in self.devices if device.kind is kind]

    def fingerprint(self) -> str:
        """Return a hash that changes when measurements made here no longer hold."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Where to look; a test looks elsewhere."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    dev: Path = Path("/dev")


def look(roots: Roots | None = None) -> Hardware:
    """Return what is here; what cannot be read is left out."""
    where = roots or Roots()
    cpu, features = _cpu(where.proc)
    return Hardware(
        machine=platform.machine(),
        cpu=cpu,
        cpu_count=os.cpu_count() or 1,
        cpu_features=features,
        devices=[
            *_edge_tpus(where),
            *_nvidia_gpus(where),
            *_intel(where, DeviceKind.INTEL_GPU, "Intel GPU", "class/drm", "renderD", "dri"),
            *_intel(where, DeviceKind.INTEL_NPU, "Intel NPU", "class/accel", "accel", "accel"),
        ],
    )


def _cpu(proc: Path) -> tuple[str, list[str]]:
    name, features = "", dict[str, None]()
    for line in _text(proc / "cpuinfo").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key in ("model name", "Model", "Hardware") and not name:
            name = value
        elif key in ("flags", "Features"):
            present = set(value.split())
            features.update(
                {label: None for flag, label in _CPU_FEATURES.items() if flag in present}
            )
            break
    if not name:
        name = _device_tree(proc, "model")
    return name, list(features)


def _edge_tpus(where: Roots) -> Iterator[Device]:
    for node in sorted(where.dev.glob("apex_*")):
        yield _node(DeviceKind.EDGE_TPU, "Coral Edge TPU (PCIe)", node)
    nodes = any(where.dev.glob("apex_*"))
    for device in sorted((where.sys / "bus/pci/devices").glob("*")):
        if (_text(device / "vendor"), _text(device / "device")) == _PCI_EDGE_TPU and not nodes:
            yield Device(
                kind=DeviceKind.EDGE_TPU,
                name="Coral Edge TPU (PCIe)",
                where=device.name,
                problem="there is no /dev/apex_*: the kernel modules gasket and apex are not "
                "loaded; install gasket-dkms",
            )
    for device in sorted((where.sys / "bus/usb/devices").glob("*")):
        if (_text(device / "idVendor"), _text(device / "idProduct")) in _USB_EDGE_TPUS:
            bus, number = _text(device / "busnum"), _text(device / "devnum")
            node = where.dev / "bus/usb" / bus.zfill(3) / number.zfill(3)
            yield _node(DeviceKind.EDGE_TPU, "Coral Edge TPU (USB)", node)


def _nvidia_gpus(where: Roots) -> Iterator[Device]:
    driven = sorted((where.proc / "driver/nvidia/gpus").glob("*/information"))
    for information in driven:
        fields = dict(_fields(_text(information)))
        yield _node(
            DeviceKind.NVIDIA_GPU,
            fields.get("Model", "NVIDIA GPU"),
            where.dev / f"nvidia{fields.get('Device Minor', '0')}",
        )
    if driven:
        return
    for device in sorted((where.sys / "bus/pci/devices").glob("*")):
        if _text(device / "vendor") == _PCI_NVIDIA and _text(device / "class").startswith(
            _PCI_DISPLAY
        ):
            yield Device(
                kind=DeviceKind.NVIDIA_GPU,
                name="NVIDIA GPU",
                where=device.name,
                problem="NVIDIA's kernel driver is not loaded",
            )
    if "nvidia,tegra" in _device_tree(where.proc, "compatible"):
        model = _device_tree(where.proc, "model") or "NVIDIA Jetson"
        yield _node(DeviceKind.NVIDIA_GPU, model, where.dev / "nvhost-gpu", "nvgpu")


def _intel(  # noqa: PLR0913, PLR0917 (a row of a table)
    where: Roots, kind: DeviceKind, name: str, folder: str, prefix: str, nodes: str
) -> Iterator[Device]:
    for entry in sorted((where.sys / folder).glob(f"{prefix}*")):
        if _text(entry / "device/vendor") == _PCI_INTEL:
            yield _node(kind, name, where.dev / nodes / entry.name)


def _node(kind: DeviceKind, name: str, node: Path, other: str = "") -> Device:
    if other and not node.exists() and (node.parent / other).exists():
        node = node.parent / other
    problem = ""
    if not node.exists():
        problem = f"{node} does not exist"
    elif not os.access(node, os.R_OK | os.W_OK):
        problem = f"no permission to open {node}: add the agent's user to the group that owns it"
    return Device(kind=kind, name=name, where=str(node), problem=problem)


def _fields(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            yield key.strip(), value.strip()


def _device_tree(proc: Path, name: str) -> str:
    return _text(proc / "device-tree" / name).replace("\0", " ").strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
