"""The director's roots on this device: the chain from the claim's root to the newest one.

Assignment keys are replaced by a new root, which the fleet's offline keys sign. The device asks the
server for the next root before it judges a document, so that a stolen assignment key is worthless
from the moment at which its successor is published. Each link is verified before it is kept; what
is found damaged on the disk is fetched again.
"""

import logging
import threading
from pathlib import Path

from edge_agent import store
from edge_agent.control.server_client import (
    DIRECTOR_ROUTE,
    ReleaseServer,
    ServerRefusedError,
    ServerTooSlowError,
    ServerUnreachableError,
)
from edge_agent.control.trust import Director, TrustError, director
from edge_agent.store import StoreError

logger = logging.getLogger(__name__)

MAX_CHAIN = 256
MAX_ROOT_BYTES = 512 * 1024
_NOT_FOUND = 404


class DirectorRoots:
    """Keeps the chain below ``trust/director/``; its methods block their thread.

    Attributes:
        refusal: why the last `refresh` left what the server handed out; empty if it did not.
    """

    def __init__(self, *, pinned: bytes, folder: Path, server: ReleaseServer) -> None:
        self._pinned = pinned
        self._folder = folder
        self._server = server
        self.refusal = ""
        self._turn = threading.Lock()

    def trusted(self) -> Director:
        """Return the newest root that the pinned one leads to on this disk.

        Raises:
            TrustError: the pinned root is not one.
        """
        return self._sound()

    def refresh(self) -> bool:
        """Fetch the roots that follow; says whether the server knew of no further one.

        A root that does not hold is left alone: the device goes on with those that do.
        """
        with self._turn:
            return self._refresh()

    def _refresh(self) -> bool:
        self.refusal = ""
        try:
            self._follow()
        except ServerTooSlowError as error:
            self.refusal = f"cannot fetch the director's next root: {error}"
            return False
        except (ServerUnreachableError, ServerRefusedError, StoreError) as error:
            logger.info("director_roots_not_asked_for", extra={"reason": str(error)})
            return False
        except TrustError as error:
            self.refusal = f"the director's next root was refused: {error}"
        return True

    def _follow(self) -> None:
        newest = self._sound()
        while newest.root.version < newest.first + MAX_CHAIN:
            version = newest.root.version + 1
            link = self._fetch(version)
            if link is None:
                return
            newest = newest.followed_by(link)
            self._folder.mkdir(parents=True, exist_ok=True)
            store.write_file(self._folder / f"{version}.root.json", link)
            logger.info("director_root_followed", extra={"version": version})

    def _sound(self) -> Director:
        """Follow the links on the disk up to the first that is absent or does not hold."""
        newest = director(self._pinned)
        while newest.root.version < newest.first + MAX_CHAIN:
            version = newest.root.version + 1
            try:
                with (self._folder / f"{version}.root.json").open("rb") as file:
                    link = file.read(MAX_ROOT_BYTES)
                newest = newest.followed_by(link)
            except FileNotFoundError:
                break
            except (OSError, TrustError) as error:
                logger.warning(
                    "director_root_damaged", extra={"version": version, "reason": str(error)}
                )
                break
        return newest

    def _fetch(self, version: int) -> bytes | None:
        content = b""
        try:
            with self._server.open(f"{DIRECTOR_ROUTE}{version}.root.json", {}) as body:
                for chunk in body.chunks():
                    content += chunk
                    if len(content) > MAX_ROOT_BYTES:
                        raise TrustError(f"director root {version} has no end")
        except ServerRefusedError as error:
            if error.status == _NOT_FOUND:
                return None
            raise
        return content
