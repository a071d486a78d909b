"""Publishes uploads and lists releases."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from sqlalchemy import delete, select

from fleet_protocol import manifest as manifests
from fleet_protocol import names, withdrawals
from fleet_protocol.errors import ProtocolError
from fleet_protocol.withdrawals import NOTHING, Withdrawals
from fleet_server import tenancy
from fleet_server.audit import trail
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database
from fleet_server.errors import MalformedError, NotFoundError, RefusedError
from fleet_server.releases.multipart import PartBegin, PartData, PartEnd, Piece
from fleet_server.releases.published import Published
from fleet_server.releases.repository import Repository
from fleet_server.releases.staging import receive_files
from fleet_server.releases.tables import Release
from fleet_server.releases.verification import (
    MAX_METADATA_BYTES,
    Index,
    StoredFile,
    Upload,
    by_release,
    files_of,
    verify_metadata,
    verify_release,
)
from fleet_server.storable import storable

logger = logging.getLogger(__name__)

MAX_PARALLEL_UPLOADS = 4


class Releases:
    """The releases of one repository and their index in the database."""

    def __init__(self, *, repository: Repository, database: Database, clock: Clock) -> None:
        self.repository = repository
        self._database = database
        self._clock = clock
        self._uploads = asyncio.Semaphore(MAX_PARALLEL_UPLOADS)
        self._commit = asyncio.Lock()

    async def publish(self, form: AsyncIterator[Piece]) -> Upload:
        """Receive, verify and publish an upload; on any refusal nothing of it is kept.

        Raises:
            MalformedError: the form or the metadata cannot be read.
            NotFoundError: the family belongs to another tenant.
            RefusedError: signature, expiry, paths, lengths, hashes or manifest do not hold.
            ConflictError: another upload of the family came first.
            TooLargeError: the metadata is too large.
            StorageFullError: the disk has no room.
            UnavailableError: the database failed; if that was after the commit, the release is
                published, and the next upload or maintenance lists it.
        """
        async with self._uploads:
            await self.reindex()
            metadata = await _receive_metadata(form)
            published = await self.published()
            upload = await asyncio.to_thread(
                verify_metadata,
                metadata,
                targets=published.targets,
                current=published.current,
                now=self._clock(),
            )
            await self.check_owned(upload.family)
            wanted = await asyncio.to_thread(self._not_stored, upload)
            folder = await asyncio.to_thread(
                self.repository.files.staging_folder,
                f"upload-{secrets.token_hex(8)}",
                size_bytes=sum(file.length for file in wanted.values()),
            )
            try:
                staged = await receive_files(form, wanted=wanted, folder=folder)
                await asyncio.to_thread(self._check_complete, upload, wanted, staged)
                async with self._commit:
                    await asyncio.to_thread(
                        self.repository.commit, upload, staged, now=self._clock()
                    )
                    await self._reindex()
            finally:
                await asyncio.to_thread(self.repository.files.discard, folder)
        logger.info(
            "release_published",
            extra={
                "family": upload.family,
                "releases": upload.releases,
                "metadata_version": upload.version,
            },
        )
        return upload

    async def published(self) -> Published:
        """Return what is published, by whichever process.

        Raises:
            UnavailableError: it cannot be read.
        """
        return await asyncio.to_thread(self.repository.follow)

    async def adopt(self, documents: Sequence[bytes]) -> list[str]:
        """Make offline metadata current, see `Repository.adopt`; returns the names of new files.

        Raises:
            MalformedError, RefusedError, ConflictError: a document may not become current.
            StorageFullError: the disk refuses.
            UnavailableError: the database failed after the adoption; maintenance catches up.
        """
        async with self._commit:
            new = await asyncio.to_thread(self.repository.adopt, documents, now=self._clock())
            await self._reindex()
        if new:
            logger.info("metadata_adopted", extra={"files": new})
        return new

    async def reindex(self) -> None:
        """Bring the index to what the repository has; does nothing where they agree.

        Raises:
            UnavailableError: the database failed.
        """
        async with self._commit:
            await self._reindex()

    async def check_owned(self, family: str) -> None:
        """Accept a family if it belongs to the tenant for whom this work is done.

        Raises:
            NotFoundError: it is another tenant's.
            UnavailableError: the database failed.
        """
        async with self._database.reading() as session:
            if not await tenancy.owns(session, family):
                raise NotFoundError(f"there is no family {family[:80]} here")

    async def _reindex(self) -> None:
        await self.published()
        with tenancy.everything():
            await self._reindex_all()

    async def _reindex_all(self) -> None:
        async with self._database.reading() as session:
            known = {
                (row.family, row.version): row.manifest_sha256
                for row in await session.scalars(select(Release))
            }
        found = await asyncio.to_thread(self._listed, known)
        gone = known.keys() - {key for key, _ in found}
        fresh = [index for _, index in found if index is not None]
        if not fresh and not gone:
            return
        now_ms = unix_ms(self._clock())
        async with self._database.writing() as session:
            for family, version in gone:
                await session.execute(
                    delete(Release).where(Release.family == family, Release.version == version)
                )
                reason = (await self._withdrawals(family)).yanked.get(version)
                if reason is not None:
                    await trail.record(
                        session,
                        "release.yank",
                        f"{family} {version}",
                        after={"reason": reason},
                        tenant=await tenancy.owner_of(session, family),
                    )
            for index in fresh:
                await session.merge(_row(index, published_ms=now_ms))
                await trail.record(
                    session,
                    "release.publish",
                    f"{index.manifest.family} {index.manifest.version}",
                    after={"manifest": index.manifest_file.sha256, "size_bytes": index.size_bytes},
                    tenant=await tenancy.owner_of(session, index.manifest.family),
                )

    async def renew(self) -> None:
        """Renew the online roles if half of their lifetime is gone.

        Raises:
            OSError: the disk refuses.
        """
        async with self._commit:
            await asyncio.to_thread(self.repository.renew, now=self._clock())

    async def page(self, *, family: str | None, after: str | None, limit: int) -> Sequence[Release]:
        """Return releases in the order of family and version text, after ``family/version``.

        Raises:
            UnavailableError: the database failed.
        """
        query = select(Release).order_by(Release.family, Release.version).limit(limit)
        if family is not None:
            query = query.where(Release.family == family)
        if after is not None:
            last_family, _, last_version = after.partition("/")
            query = query.where(
                (Release.family > last_family)
                | ((Release.family == last_family) & (Release.version > last_version))
            )
        async with self._database.reading() as session:
            return (await session.scalars(query)).all()

    async def get(self, family: str, version: str) -> tuple[Release, manifests.Manifest]:
        """Return one release with its manifest.

        Raises:
            NotFoundError: there is no such release.
            UnavailableError: the database failed.
        """
        release = await self.find(family, version)
        payload = await asyncio.to_thread(self.repository.read_manifest, family, version)
        return release, await asyncio.to_thread(manifests.decode, payload)

    async def find(self, family: str, version: str) -> Release:
        """Return one release's row of the index.

        Raises:
            NotFoundError: there is no such release, or no longer.
            UnavailableError: the database failed.
        """
        async with self._database.reading() as session:
            row = await session.get(Release, (family, version))
            owned = await tenancy.owns(session, family)
        if row is None:
            why = (await self._withdrawals(family)).yanked.get(version) if owned else None
            if why is not None:
                raise NotFoundError(
                    f"{family} {version} was withdrawn by its publisher ({why}); choose another "
                    "release"
                )
            raise NotFoundError(f"there is no release {family[:80]} {version[:80]}")
        return row

    async def installable(self, family: str, version: str) -> Release:
        """Return the row of a release that devices do not refuse from the outset.

        Raises:
            NotFoundError: there is no such release, or no longer.
            RefusedError: its publisher forbids all of its security counter.
            UnavailableError: the database failed.
        """
        row = await self.find(family, version)
        floor = (await self._withdrawals(family)).security_floor
        if row.security_counter < floor:
            raise RefusedError(
                f"{family} {version} has security counter {row.security_counter}, and its "
                f"publisher lets devices install {floor} and higher only; choose a newer release"
            )
        return row

    async def _withdrawals(self, family: str) -> Withdrawals:
        signed = (await self.published()).families.get(family)
        return NOTHING if signed is None else withdrawals.of(signed.unrecognized_fields)

    def _listed(
        self, known: dict[tuple[str, str], str]
    ) -> list[tuple[tuple[str, str], Index | None]]:
        listed: list[tuple[tuple[str, str], Index | None]] = []
        for role in self.repository.published.families.values():
            for key, files in by_release(files_of(role)).items():
                unchanged = known.get(key) == files[manifests.MANIFEST_FILE].sha256
                listed.append((key, None if unchanged else self._index(key, files)))
        return listed

    def _not_stored(self, upload: Upload) -> dict[str, StoredFile]:
        """Return what has to be sent: a list that is signed anew may name files that are here."""
        return {
            path: file
            for path, file in upload.added.items()
            if not self.repository.files.has(path, file)
        }

    def _check_complete(
        self, upload: Upload, wanted: dict[str, StoredFile], staged: dict[str, Path]
    ) -> None:
        missing = sorted(wanted.keys() - staged.keys())
        if missing:
            raise RefusedError(f"the upload lacks {', '.join(missing[:5])}; nothing was kept")
        for (family, version), files in by_release(upload.added).items():
            path = names.target_path(family, version, manifests.MANIFEST_FILE)
            manifest = staged.get(path) or self.repository.files.location(path, upload.added[path])
            verify_release(manifest.read_bytes(), family=family, version=version, files=files)

    def _index(self, key: tuple[str, str], files: dict[str, StoredFile]) -> Index:
        payload = self.repository.read_manifest(*key)
        return verify_release(payload, family=key[0], version=key[1], files=files)


async def _receive_metadata(form: AsyncIterator[Piece]) -> bytes:
    metadata = bytearray()
    async for piece in form:
        match piece:
            case PartBegin(name, _) if name != "metadata":
                raise MalformedError(
                    "the first field of the form must be `metadata`, so that the files after it "
                    "can be checked as they arrive"
                )
            case PartData(content):
                metadata += content
                if len(metadata) > MAX_METADATA_BYTES:
                    break
            case PartEnd():
                return bytes(metadata)
    return bytes(metadata)


def _row(index: Index, *, published_ms: int) -> Release:
    return Release(
        family=index.manifest.family,
        version=index.manifest.version,
        manifest_path=index.manifest_path,
        manifest_length=index.manifest_file.length,
        manifest_sha256=index.manifest_file.sha256,
        security_counter=index.manifest.security_counter,
        description=storable(index.manifest.description),
        size_bytes=index.size_bytes,
        published_ms=published_ms,
    )


def checked_metadata_name(name: str) -> str:
    """Return the name of a metadata file if it is one, which makes it safe in a path.

    Raises:
        NotFoundError: it cannot name a metadata file.
    """
    stem = name.removesuffix(".json")
    version, dot, role = stem.partition(".")
    refusal = NotFoundError(f"{name[:100]!r} is not the name of a metadata file")
    if not name.endswith(".json") or (dot and not version.isdecimal()):
        raise refusal
    try:
        names.family(role if dot else stem)
    except ProtocolError:
        raise refusal from None
    return name
