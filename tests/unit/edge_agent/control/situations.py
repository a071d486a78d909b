"""Situations of a device with one family, from which the table of what to do is made."""

from dataclasses import replace

import msgspec

from edge_agent.control.assignment import AssignedRelease, Assignment, ManifestRef
from edge_agent.control.blob_audit import Damage
from edge_agent.control.journal import Candidate, Committed, UpdateRecord
from edge_agent.control.reconcile import Situation
from edge_agent.control.waiting import Waiting
from edge_agent.runtime_api import ActiveRelease, LoadedRelease, RuntimeStatus
from fleet_protocol.manifest import Format
from fleet_protocol.update_states import UpdateState as S

F = "animals"


def ref(version: str) -> ManifestRef:
    return ManifestRef(
        path=f"models/{F}/{version}/manifest.json", length=10, sha256=version[0] * 64
    )


def wanted(version: str) -> AssignedRelease:
    return AssignedRelease(family=F, version=version, manifest=ref(version))


def active(version: str) -> ActiveRelease:
    return ActiveRelease(
        family=F,
        version=version,
        variant="v",
        format=Format.ONNX,
        accelerator="cpu",
        sha256=version[0] * 64,
        inputs=[],
        outputs=[],
    )


def committed(version: str) -> Committed:
    return Committed(release=active(version), manifest=ref(version), security_counter=0)


def record(state: S, version: str = "2.0.0", **changes: object) -> UpdateRecord:
    candidate = Candidate(
        release=active(version),
        manifest_sha256=version[0] * 64,
        security_counter=0,
        memory_bytes=1,
    )
    base = UpdateRecord(
        family=F,
        version=version,
        manifest=ref(version),
        assignment_version=7,
        state=state,
        attempts=1,
        candidate=None if state is S.DOWNLOADING else candidate,
        epoch="e1" if state is S.PROBATION else "",
    )
    return msgspec.structs.replace(base, **changes)


def runtime(*versions: str, serving: str | None = None, epoch: str = "e1") -> RuntimeStatus:
    return RuntimeStatus(
        epoch=epoch,
        pid=1,
        releases=[
            LoadedRelease(
                family=F,
                version=version,
                variant="v",
                backend="b",
                accelerator="cpu",
                active=version == serving,
            )
            for version in versions
        ],
        resident_bytes=1,
        backends={"onnxruntime": "1"},
    )


def assignment(*versions: str) -> Assignment:
    return Assignment(
        device_id="d",
        version=7,
        expires_ms=1,
        releases={release.family: release for release in map(wanted, versions)},
    )


EMPTY = Situation(
    assignment=None, may_install=True, records={}, active={}, committed={}, runtime=runtime()
)
SETTLED_ON_1 = replace(
    EMPTY,
    assignment=assignment("1.0.0"),
    active={F: active("1.0.0")},
    committed={F: committed("1.0.0")},
    runtime=runtime("1.0.0", serving="1.0.0"),
)
WANTS_2 = replace(SETTLED_ON_1, assignment=assignment("2.0.0"))


def under_way(state: S, version: str = "2.0.0", **changes: object) -> Situation:
    return replace(WANTS_2, records={F: record(state, version, **changes)})


GONE = {F: Damage(active("1.0.0"), "is gone", lost=True)}
UNREADABLE = {F: Damage(active("1.0.0"), "cannot be read", lost=False)}
WITHDRAWN = {F: "mislabelled"}
HELD = {F: Waiting(download="d", activation="a")}
DOWNLOAD_AHEAD = {F: Waiting(activation="a")}
