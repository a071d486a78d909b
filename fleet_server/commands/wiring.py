"""Makes the parts of commands."""

from dataclasses import dataclass

from fleet_server.clock import Clock
from fleet_server.commands.archive import Archive
from fleet_server.commands.configurations import Configurations
from fleet_server.commands.issuing import Issuing, Signing
from fleet_server.commands.loop import CommandLoop
from fleet_server.commands.mailboxes import Downlink, Mailboxes
from fleet_server.database import Database


@dataclass(frozen=True, slots=True)
class CommandServices:
    """What the routes call, and the loop that runs beside them."""

    issuing: Issuing
    archive: Archive
    mailboxes: Mailboxes
    configurations: Configurations
    loop: CommandLoop


def wired(
    database: Database, clock: Clock, *, signer: Signing, downlink: Downlink
) -> CommandServices:
    """Return the parts, made and not yet started."""
    mailboxes = Mailboxes(database=database, downlink=downlink, clock=clock)
    issuing = Issuing(database=database, signer=signer, mailboxes=mailboxes, clock=clock)
    archive = Archive(database=database, mailboxes=mailboxes, clock=clock)
    configurations = Configurations(database=database, clock=clock)
    return CommandServices(
        issuing=issuing,
        archive=archive,
        mailboxes=mailboxes,
        configurations=configurations,
        loop=CommandLoop(
            archive=archive,
            mailboxes=mailboxes,
            configurations=configurations,
            issuing=issuing,
        ),
    )
