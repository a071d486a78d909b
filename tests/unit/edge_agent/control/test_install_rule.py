"""The install rule, number by number."""

import msgspec
import pytest

from edge_agent.control import install_rule, variants
from edge_agent.control.assignment import ManifestRef
from edge_agent.control.install_rule import DisagreementError, InstallRefusedError
from edge_agent.runtime_api import RuntimeStatus
from tests.simulators.device_releases import release

REF = ManifestRef(path="models/animals/1.0.0/manifest.json", length=10, sha256="a" * 64)
MANIFEST = release("1.0.0", security_counter=3).manifest


@pytest.mark.parametrize(
    "repository",
    [
        None,
        msgspec.structs.replace(REF, length=11),
        msgspec.structs.replace(REF, sha256="b" * 64),
    ],
)
def test_1_disagreement_is_refused(repository: ManifestRef | None) -> None:
    install_rule.check_agreement(REF, REF)
    with pytest.raises(DisagreementError):
        install_rule.check_agreement(REF, repository)


@pytest.mark.parametrize(
    ("family", "version", "floor", "fits"),
    [
        ("animals", "1.0.0", 0, True),
        ("animals", "1.0.0", 3, True),
        ("animals", "1.0.0", 4, False),
        ("plants", "1.0.0", 0, False),
        ("animals", "1.0.1", 0, False),
    ],
)
def test_2_and_3_the_manifest_is_of_its_path_and_not_below_the_floor(
    family: str, version: str, floor: int, *, fits: bool
) -> None:
    def check() -> None:
        install_rule.check_manifest(
            MANIFEST, family=family, version=version, path=REF.path, floor=floor
        )

    if fits:
        check()
    else:
        with pytest.raises(InstallRefusedError):
            check()


@pytest.mark.parametrize(
    ("accelerators", "backends", "fits"),
    [
        (["cpu"], ["onnxruntime"], True),
        (["edgetpu", "cpu"], ["litert", "onnxruntime"], True),
        (["edgetpu"], ["onnxruntime"], False),
        (["cpu"], ["litert"], False),
        (["cpu"], ["unheard-of"], False),
        (["cpu"], [], False),
    ],
)
def test_4_a_variant_needs_hardware_and_backend(
    accelerators: list[str], backends: list[str], *, fits: bool
) -> None:
    manifest = release(accelerators=accelerators).manifest
    status = RuntimeStatus(
        epoch="e", pid=1, releases=[], resident_bytes=1, backends=dict.fromkeys(backends, "1")
    )
    found = variants.fitting(manifest, variants.placements_of(status))
    if fits:
        install_rule.check_fitting(manifest, found)
        assert [one.label for one in found.runnable] == ["fp32 on cpu"]
    else:
        with pytest.raises(InstallRefusedError, match="no variant"):
            install_rule.check_fitting(manifest, found)


@pytest.mark.parametrize(("length", "sha256"), [(1, None), (None, "c" * 64)])
def test_5_a_variant_that_the_repository_describes_otherwise_is_refused(
    length: int | None, sha256: str | None
) -> None:
    variant = MANIFEST.variants[0]
    install_rule.check_variant(variant, path="p", length=variant.length, sha256=variant.sha256)
    with pytest.raises(InstallRefusedError, match="disagree"):
        install_rule.check_variant(
            variant, path="p", length=length or variant.length, sha256=sha256 or variant.sha256
        )


def test_a_committed_version_does_not_change_its_content() -> None:
    install_rule.check_not_replaced(REF, None)
    install_rule.check_not_replaced(REF, REF)
    with pytest.raises(InstallRefusedError, match="never changes"):
        install_rule.check_not_replaced(REF, msgspec.structs.replace(REF, sha256="b" * 64))
