"""Asks the server now and then who its authorities are: before the old ones end, new ones follow.

A new issuer of device certificates makes the device renew its own (`edge_agent.control.renewal`). A
new fleet CA is trusted if the one before it signed it (`edge_agent.fleet_authorities`).
"""

import asyncio
import logging
import random
from collections.abc import Callable
from pathlib import Path

from edge_agent import fleet_authorities
from edge_agent.control.backoff import Backoff
from edge_agent.control.renewal import CertificateServer
from edge_agent.errors import AgentError
from fleet_protocol.errors import ProtocolError
from fleet_protocol.messages import Authorities, AuthoritiesRequest, decode, encode

logger = logging.getLogger(__name__)

ROUTE = "/device/v1/authorities"

_SHORTEST_S, _LONGEST_S = 4 * 3600.0, 8 * 3600.0
"""Between two questions, so that a fleet spreads what follows from the answer over hours."""


class AuthorityWatch:
    """Follows the authorities of one device's fleet."""

    def __init__(
        self,
        *,
        claim_pem: Callable[[], str],
        path: Path,
        server: CertificateServer,
        trust: Callable[[str], None],
        issued_by: Callable[[str], None],
    ) -> None:
        """Make it; nothing is read yet.

        Args:
            claim_pem: returns the fleet CAs of the claim that holds.
            path: where those that follow are kept.
            server: the fleet server.
            trust: lets connections to come trust certificates (PEM).
            issued_by: is told the key of the CA that issues now.
        """
        self._claim_pem = claim_pem
        self._path = path
        self._server = server
        self._trust = trust
        self._issued_by = issued_by

    async def run(self, *, backoff: Backoff, randomness: random.Random) -> None:
        """Ask again and again, until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.ask)
            except (AgentError, ProtocolError) as error:
                logger.warning("authorities_not_known", extra={"reason": str(error)})
                await asyncio.sleep(backoff.next_s())
            else:
                backoff.reset()
                await asyncio.sleep(randomness.uniform(_SHORTEST_S, _LONGEST_S))

    def ask(self) -> None:
        """Ask once, keep what is proven, and tell the server if that is more than it knows.

        Raises:
            AgentError: the server does not answer, or the disk refuses.
            ProtocolError: the answer is none.
        """
        claim_pem = self._claim_pem()
        before = fleet_authorities.trusted(claim_pem, fleet_authorities.load(self._path))
        answer = self._told(before.key_ids)
        new = [each for each in answer.fleet_cas if each not in before.followers]
        after = fleet_authorities.trusted(claim_pem, [*before.followers, *new])
        if len(after.certificates) > len(before.certificates):
            fleet_authorities.save(self._path, after.followers)
            self._trust(after.pem)
            logger.info("fleet_ca_trusted", extra={"keys": after.key_ids})
            answer = self._told(after.key_ids)
        self._issued_by(answer.device_ca)

    def _told(self, key_ids: list[str]) -> Authorities:
        request = encode(AuthoritiesRequest(trusted=key_ids))
        return decode(self._server.post(ROUTE, request), Authorities)
