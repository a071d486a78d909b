"""Adopts metadata made offline, and says what runs out."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from fleet_server import tenancy, tuf_files
from fleet_server.assignments.director import Director
from fleet_server.assignments.service import Assignments
from fleet_server.broker.followers import Followers
from fleet_server.clock import Clock
from fleet_server.errors import MalformedError, NotFoundError
from fleet_server.releases.service import Releases
from fleet_server.trust import expiries
from fleet_server.trust.expiries import Expiry, Level

logger = logging.getLogger(__name__)

MAX_DOCUMENTS = 64


class Trust:
    """Both repositories' offline metadata."""

    def __init__(  # noqa: PLR0913 (what it looks after, by keyword)
        self,
        *,
        releases: Releases,
        assignments: Assignments,
        director: Director,
        followers: Followers,
        online: Path,
        clock: Clock,
    ) -> None:
        self._releases = releases
        self._assignments = assignments
        self.director = director
        self._followers = followers
        self._online = online
        self._clock = clock
        self._told: dict[str, tuple[Level, int]] = {}

    async def adopt(self, documents: Sequence[bytes]) -> list[str]:
        """Make documents current: first those of the release repository, then director roots.

        Each of the two is all or nothing; what is current already is passed over.

        Returns:
            What is new, by name.

        Raises:
            MalformedError, RefusedError, ConflictError: a document may not become current.
            UnavailableError: signer or database do not answer; the same request may be repeated.
            StorageFullError: the disk refuses.
        """
        if len(documents) > MAX_DOCUMENTS:
            raise MalformedError(f"there are more than {MAX_DOCUMENTS} documents")
        roots = [
            document
            for number, document in enumerate(documents, start=1)
            if is_director_root(document, which=f"document {number} of {len(documents)}")
        ]
        new = await self._releases.adopt([one for one in documents if one not in roots])
        for root in sorted(roots, key=_version):
            if await self._assignments.adopt_root(root):
                new.append(f"director {_version(root)}.root.json")
        return new

    async def expiries(self) -> list[Expiry]:
        """Return what runs out, the families of the caller's tenant only, the nearest first.

        Raises:
            UnavailableError: the database failed.
        """
        found = await self._all()
        own = []
        if tenancy.current() == tenancy.DEFAULT:
            found += expiries.of_followers(await self._followers.all())
        for one in found:
            if one.family is not None:
                try:
                    await self._releases.check_owned(one.family)
                except NotFoundError:
                    continue
            own.append(one)
        return sorted(own, key=lambda one: one.expires)

    async def warn(self) -> None:
        """Log what runs out soon: once a day, and when it becomes more urgent.

        Raises:
            SetupError: a certificate cannot be read.
        """
        now = self._clock()
        for one in await self._all():
            level, day = one.level(now), now.toordinal()
            if level is not Level.OK and self._told.get(one.name) != (level, day):
                logger.warning(
                    "expires_soon",
                    extra={
                        "what": one.name,
                        "level": level.value,
                        "expires": one.expires.isoformat(),
                        "action": one.action,
                    },
                )
            self._told[one.name] = (level, day)

    async def _all(self) -> list[Expiry]:
        published = await self._releases.published()
        await asyncio.to_thread(self.director.follow)
        return await asyncio.to_thread(expiries.all_of, published, self.director.root, self._online)


def is_director_root(document: bytes, *, which: str = "the document") -> bool:
    """Tell the two kinds of root apart: the director's has nobody for snapshot and timestamp.

    Args:
        document: signed metadata.
        which: of several it is, for the refusal.

    Raises:
        MalformedError: it is no metadata.
    """
    try:
        signed = Metadata[Root].from_bytes(document).signed
    except (RepositoryError, ValueError, TypeError, RecursionError) as error:
        raise MalformedError(
            f"{which} is not TUF metadata: {tuf_files.unreadable(error)}; send the files of "
            "`skerry provision ceremony combine` as they are"
        ) from error
    return isinstance(signed, Root) and not signed.roles["snapshot"].keyids


def _version(document: bytes) -> int:
    return Metadata[Root].from_bytes(document).signed.version
