"""TensorRT's engine cache: what ONNX Runtime is told, and what becomes of the folders."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import onnxruntime
import pytest

from edge_agent.hardware import Device, DeviceKind, Hardware
from edge_agent.inference.backends.engine_cache import EngineCache
from edge_agent.inference.backends.onnxruntime_backend import OnnxRuntimeBackend
from edge_agent.inference.errors import LoadError
from edge_agent.runtime_api import ActiveRelease
from edge_agent.state_dir import StateDir
from tests.unit.edge_agent.inference.reference_release import reference_release

_REAL: Any = onnxruntime
TENSORRT = ["TensorrtExecutionProvider", "CUDAExecutionProvider"]


def gpu(name: str) -> Hardware:
    device = Device(kind=DeviceKind.NVIDIA_GPU, name=name, where="/dev/nvidia0")
    return Hardware(machine="m", cpu="c", cpu_count=1, cpu_features=[], devices=[device])


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    made = StateDir(tmp_path / "s")
    made.create()
    return made


def cache(state: StateDir, *, name: str = "A100", max_bytes: int = 1000) -> EngineCache:
    return EngineCache(
        state.engines,
        blobs=state.blobs,
        max_bytes=max_bytes,
        look=lambda: gpu(name),
        drivers=[state.root / "driver"],
    )


@pytest.fixture
def release(state: StateDir) -> ActiveRelease:
    return msgspec.structs.replace(reference_release(state), accelerator="tensorrt")


class TensorRt(ModuleType):
    """ONNX Runtime with a TensorRT that writes an engine and computes on the CPU."""

    __version__ = onnxruntime.__version__
    SessionOptions = _REAL.SessionOptions

    def __init__(self) -> None:
        super().__init__("onnxruntime")
        self.providers: list[list[tuple[str, dict[str, str]]]] = []
        self.broken_engines = False

    def get_available_providers(self) -> list[str]:
        return [*TENSORRT, "CPUExecutionProvider"]

    def set_default_logger_severity(self, severity: int) -> None:
        _REAL.set_default_logger_severity(severity)

    def InferenceSession(  # noqa: N802 (as the library has it)
        self,
        model: str,
        options: Any,  # noqa: ANN401 (the library has no types)
        *,
        providers: list[tuple[str, dict[str, str]]],
    ) -> object:
        self.providers.append(providers)
        engine = Path(providers[0][1]["trt_engine_cache_path"], "graph.engine")
        if engine.exists() and self.broken_engines:
            raise RuntimeError("deserializing the engine failed")
        engine.write_bytes(bytes(600))
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "0")
        session = _REAL.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        session.get_providers = lambda: TENSORRT
        return session


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> TensorRt:
    library = TensorRt()
    monkeypatch.setitem(sys.modules, "onnxruntime", library)
    return library


def kept(state: StateDir) -> list[str]:
    return sorted(str(path.relative_to(state.engines)) for path in state.engines.rglob("*.engine"))


def test_onnxruntime_is_told_where_to_keep_engines(
    state: StateDir, release: ActiveRelease, tensorrt: TensorRt
) -> None:
    engines = cache(state)
    folder = engines.folder(release.sha256, onnxruntime.__version__)
    OnnxRuntimeBackend(threads=1, engines=engines).load(state.blob(release.sha256), release)
    first, second = tensorrt.providers[0]
    assert first == (
        "TensorrtExecutionProvider",
        {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(folder),
        },
    )
    assert second == ("CUDAExecutionProvider", {})
    assert [path.name for path in folder.iterdir()] == ["graph.engine"]
    assert folder.stat().st_mode & 0o777 == 0o700


def test_an_engine_that_does_not_load_is_built_anew_once(
    state: StateDir, release: ActiveRelease, tensorrt: TensorRt
) -> None:
    backend = OnnxRuntimeBackend(threads=1, engines=cache(state))
    path = state.blob(release.sha256)
    backend.load(path, release)
    backend.load(path, release)
    assert len(tensorrt.providers) == 2
    tensorrt.broken_engines = True
    backend.load(path, release)
    assert len(tensorrt.providers) == 4
    assert len(kept(state)) == 1


def test_a_model_that_fails_leaves_no_engine(
    state: StateDir, release: ActiveRelease, tensorrt: TensorRt
) -> None:
    broken = state.blob("1" * 64)
    broken.write_bytes(b"not a model")
    other = msgspec.structs.replace(release, sha256="1" * 64)
    with pytest.raises(LoadError, match="ONNX Runtime cannot load"):
        OnnxRuntimeBackend(threads=1, engines=cache(state)).load(broken, other)
    assert len(tensorrt.providers) == 1
    assert kept(state) == []


def fill(engines: EngineCache, sha256: str, version: str = "1", size: int = 400) -> Path:
    with engines.opened(engines.folder(sha256, version)) as folder:
        (folder / "x.engine").write_bytes(bytes(size))
    return folder


@pytest.mark.parametrize(
    "changed",
    [
        lambda state: (cache(state), "2"),
        lambda state: (cache(state, name="H100"), "1"),
        lambda state: ((state.root / "driver").write_text("570"), cache(state), "1")[1:],
    ],
    ids=["library", "gpu", "driver"],
)
def test_other_conditions_make_another_engine_and_the_old_one_goes(
    state: StateDir, changed: Callable[[StateDir], tuple[EngineCache, str]]
) -> None:
    state.blob("a" * 64).touch()
    old = fill(cache(state), "a" * 64)
    assert fill(cache(state), "a" * 64) == old
    engines, version = changed(state)
    new = fill(engines, "a" * 64, version)
    assert new != old
    assert not old.exists()


def test_engines_go_with_their_model_and_beyond_the_limit(state: StateDir) -> None:
    engines = cache(state)
    for name in "abc":
        state.blob(name * 64).touch()
    first, second = fill(engines, "a" * 64), fill(engines, "b" * 64)
    state.blob("b" * 64).unlink()
    engines.collect()
    assert first.exists()
    assert not second.exists()
    third = fill(engines, "c" * 64, size=700)
    engines.collect(third)
    assert third.exists()
    assert not first.exists()


def test_what_was_interrupted_is_thrown_away(state: StateDir) -> None:
    state.blob("a" * 64).touch()
    engines = cache(state)
    folder = engines.folder("a" * 64, "1")
    folder.mkdir(parents=True)
    (folder / "unfinished").touch()
    (folder / "half.engine").touch()
    with engines.opened(folder) as opened:
        assert not (opened / "half.engine").exists()
        (opened / "whole.engine").touch()
    with engines.opened(folder) as opened:
        assert (opened / "whole.engine").exists()
    with pytest.raises(ZeroDivisionError), engines.opened(folder):
        1 / 0  # noqa: B018 (something that fails)
    assert not folder.exists()
