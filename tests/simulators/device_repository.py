"""The release repository as a device sees it, with real TUF metadata.

`SimulatedRepository` implements the agent's `ReleaseServer`, so the agent's own python-tuf client,
its downloads and its verification run against it; a test turns its faults on.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from urllib.parse import unquote

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from edge_agent.control.server_client import (
    DELTAS_ROUTE,
    DIRECTOR_ROUTE,
    METADATA_ROUTE,
    TARGETS_ROUTE,
    ServerRefusedError,
    ServerTooSlowError,
    ServerUnreachableError,
)
from fleet_protocol import withdrawals
from fleet_protocol.withdrawals import NOTHING, Withdrawals
from fleet_server.deltas.encoding import encode
from tests.simulators.device_clock import START_MS
from tests.simulators.device_releases import Release

START = datetime.fromtimestamp(START_MS / 1000, UTC)
FAR_AWAY = timedelta(days=3650)


Content = TypeVar("Content", Root, Targets, Snapshot, Timestamp)


def signed(content: Content, *signers: CryptoSigner) -> bytes:
    """Return signed metadata as it travels."""
    metadata = Metadata(content)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()


def target_file(path: str, content: bytes) -> TargetFile:
    """Return what metadata states about a file."""
    return TargetFile.from_data(path, content, ["sha256"])


@dataclass
class Faults:
    """What a test lets go wrong; each is off at first.

    Attributes:
        unreachable: no request gets an answer.
        refuse: status with which every request for a path that contains the key is answered.
        break_after: bytes after which a body breaks off.
        end_after: bytes after which a body ends as if it were complete.
        ignore_range: answer 200 with the whole file, as some proxies do.
        stated_bytes: what the head of an answer states as the size of the file.
        content: served in the place of a file whose path contains the key.
        too_slow: a file whose path contains it comes so slowly that the client gives up.
    """

    unreachable: bool = False
    refuse: dict[str, int] = field(default_factory=dict)
    break_after: int | None = None
    end_after: int | None = None
    ignore_range: bool = False
    stated_bytes: int | None = None
    content: dict[str, bytes] = field(default_factory=dict)
    too_slow: str = ""


class SimulatedRepository:
    """A TUF repository with consistent snapshots, everything in memory.

    One family has releases; each other one has a publisher of its own and an empty role.

    Attributes:
        requests: path and Range of each request for metadata or a target, in order.
        slow_requests: how many of them asked for a body that is read with pauses.
        keys: those of all roles, ``publisher:<family>`` for the other families.
        files: what the server hands out, by path.
        version: of timestamp, snapshot and family role.
        offline_version: of root and targets.
        withdrawn: what the family's list says of withdrawn releases.
    """

    def __init__(
        self,
        *,
        family: str = "animals",
        other_families: Iterable[str] = (),
        now: datetime | None = None,
    ) -> None:
        self.faults = Faults()
        self.requests: list[tuple[str, str | None]] = []
        self.slow_requests = 0
        self._now = now or START
        self._family = family
        self._others = tuple(other_families)
        publishers = ["publisher", *(f"publisher:{other}" for other in self._others)]
        self.keys = {
            name: CryptoSigner.generate_ed25519()
            for name in ("root", "targets", "snapshot", "timestamp", *publishers)
        }
        self.files: dict[str, bytes] = {}
        self._targets: dict[str, TargetFile] = {}
        self.withdrawn = NOTHING
        self.version = 0
        self.offline_version = 0
        self.root = self.sign_offline(self.keys["root"])
        for other in self._others:
            role = Targets(expires=self._now + FAR_AWAY)
            signer = self.keys[f"publisher:{other}"]
            self.files[f"{METADATA_ROUTE}1.{other}.json"] = signed(role, signer)
        self._publish()

    def add(self, *releases: Release) -> None:
        """Publish releases."""
        for release in releases:
            for path, content in release.targets().items():
                self.put_target(path, content)
        self._publish()

    def withdraw(self, *versions: str, floor: int = 0) -> None:
        """Take releases from the list and say so, as `skerry model yank` does."""
        self.withdrawn = Withdrawals(
            yanked={**self.withdrawn.yanked, **dict.fromkeys(versions, "mislabelled")},
            security_floor=max(floor, self.withdrawn.security_floor),
        )
        gone = tuple(f"models/{self._family}/{version}/" for version in versions)
        self._targets = {
            path: file for path, file in self._targets.items() if not path.startswith(gone)
        }
        self._publish()

    def put_target(self, path: str, content: bytes) -> None:
        """Sign a target with the publisher's key at the next publication."""
        self._targets[path] = target_file(path, content)
        folder, _, name = path.rpartition("/")
        digest = hashlib.sha256(content).hexdigest()
        self.files[f"{TARGETS_ROUTE}{folder}/{digest}.{name}"] = content

    def rotate(self, *names: str, expires: datetime | None = None) -> None:
        """Give roles new keys: a new root, signed by the old and the new root key, and the rest."""
        old_root = self.keys["root"]
        self.keys |= {name: CryptoSigner.generate_ed25519() for name in names}
        self.sign_offline(old_root, expires=expires)
        self._publish()

    def put_director_root(self, version: int, content: bytes) -> None:
        """Hand out a root of the director."""
        self.files[f"{DIRECTOR_ROUTE}{version}.root.json"] = content

    def put_delta(self, base: bytes, path: str, content: bytes, delta: bytes | None = None) -> str:
        """Have a delta for a target ready; return the path at which it is asked for."""
        folder, _, name = path.rpartition("/")
        base_sha256, sha256 = (hashlib.sha256(one).hexdigest() for one in (base, content))
        asked = f"{DELTAS_ROUTE}{base_sha256}/{folder}/{sha256}.{name}"
        self.files[asked] = b"".join(encode(base, content)) if delta is None else delta
        return asked

    def publish(self, *, timestamp_expires: datetime | None = None) -> None:
        """Sign everything anew."""
        self._publish(timestamp_expires)

    @contextlib.contextmanager
    def open(
        self, path: str, headers: Mapping[str, str], *, slowly: bool = False
    ) -> Iterator["_Answer"]:
        """Answer a request."""
        path = unquote(path)
        wanted = headers.get("Range")
        if not path.startswith(DIRECTOR_ROUTE):
            self.requests.append((path, wanted))
        self.slow_requests += slowly
        self._fail(path)
        content = self.files.get(path)
        for part, replacement in self.faults.content.items():
            if part in path:
                content = replacement
        if content is None:
            raise ServerRefusedError(f"{path}: 404", status=404)
        if headers.get("If-None-Match") == f'"{hashlib.sha256(content).hexdigest()}"':
            raise ServerRefusedError(f"{path}: 304", status=304)
        start = 0
        if wanted is not None and not self.faults.ignore_range:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                raise ServerRefusedError(f"{path}: 416", status=416)
        yield _Answer(206 if start else 200, content[start:], self.faults)

    def _fail(self, path: str) -> None:
        if self.faults.unreachable:
            raise ServerUnreachableError("the simulated server is away")
        if self.faults.too_slow and self.faults.too_slow in path:
            raise ServerTooSlowError("the server sent 1 bytes in 60 s; less than 16384")
        for part, status in self.faults.refuse.items():
            if part in path:
                raise ServerRefusedError(f"{path}: {status}", status=status)

    def metadata(self, name: str) -> bytes:
        """Return a metadata file as it is handed out now."""
        return self.files[METADATA_ROUTE + name]

    def push_to_the_end(self) -> None:
        """Do what a thief of the snapshot and timestamp keys can: use up their versions."""
        self._publish_online(2**31 - 1)

    def sign_offline(self, *root_keys: CryptoSigner, expires: datetime | None = None) -> bytes:
        """Publish the next root and targets, the root signed also by the given keys."""
        self.offline_version += 1
        signers = {signer.public_key.keyid: signer for signer in (*root_keys, self.keys["root"])}
        root = signed(self._make_root(expires), *signers.values())
        self.files[f"{METADATA_ROUTE}{self.offline_version}.root.json"] = root
        self.files[f"{METADATA_ROUTE}{self.offline_version}.targets.json"] = self._make_targets()
        return root

    def _make_root(self, expires: datetime | None) -> Root:
        root = Root(
            version=self.offline_version,
            expires=expires or self._now + FAR_AWAY,
            consistent_snapshot=True,
        )
        for role in ("root", "targets", "snapshot", "timestamp"):
            root.add_key(self.keys[role].public_key, role)
        return root

    def _make_targets(self) -> bytes:
        keys: dict[str, Key] = {}
        roles: dict[str, DelegatedRole] = {}
        publishers = {other: f"publisher:{other}" for other in self._others}
        for family, name in {self._family: "publisher", **publishers}.items():
            key = self.keys[name].public_key
            keys[key.keyid] = key
            roles[family] = DelegatedRole(
                name=family,
                keyids=[key.keyid],
                threshold=1,
                terminating=True,
                paths=[f"models/{family}/*/*"],
            )
        delegations = Delegations(keys=keys, roles=roles)
        targets = Targets(
            version=self.offline_version, expires=self._now + FAR_AWAY, delegations=delegations
        )
        return signed(targets, self.keys["targets"])

    def _publish(self, timestamp_expires: datetime | None = None) -> None:
        self.version += 1
        version = self.version
        role = Targets(
            version=version,
            expires=self._now + FAR_AWAY,
            targets=dict(self._targets),
            unrecognized_fields=withdrawals.extra_fields(self.withdrawn),
        )
        self.files[f"{METADATA_ROUTE}{version}.{self._family}.json"] = signed(
            role, self.keys["publisher"]
        )
        self._publish_online(version, timestamp_expires)

    def _publish_online(self, version: int, timestamp_expires: datetime | None = None) -> None:
        snapshot = Snapshot(
            version=version,
            expires=self._now + FAR_AWAY,
            meta={
                "targets.json": MetaFile(self.offline_version),
                f"{self._family}.json": MetaFile(self.version),
                **{f"{other}.json": MetaFile(1) for other in self._others},
            },
        )
        timestamp = Timestamp(
            version=version,
            expires=timestamp_expires or self._now + FAR_AWAY,
            snapshot_meta=MetaFile(version),
        )
        self.files |= {
            f"{METADATA_ROUTE}{version}.snapshot.json": signed(snapshot, self.keys["snapshot"]),
            f"{METADATA_ROUTE}timestamp.json": signed(timestamp, self.keys["timestamp"]),
        }


class _Answer:
    def __init__(self, status: int, content: bytes, faults: Faults) -> None:
        self._status = status
        self._content = content
        self._faults = faults

    @property
    def status(self) -> int:
        return self._status

    @property
    def file_bytes(self) -> int | None:
        return self._faults.stated_bytes

    def chunks(self) -> Iterator[bytes]:
        sent = 0
        for start in range(0, len(self._content), 4096):
            chunk = self._content[start : start + 4096]
            if self._faults.end_after is not None and sent >= self._faults.end_after:
                return
            if self._faults.break_after is not None and sent >= self._faults.break_after:
                raise ServerUnreachableError("the simulated server broke off")
            yield chunk
            sent += len(chunk)
