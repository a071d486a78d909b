"""The table of roles: what each may do. Routes ask for a permission, never for a role.

| permission | viewer | publisher | operator | broker | admin |
|---|---|---|---|---|---|
| read: devices, releases, telemetry | yes | yes | yes | | yes |
| publish: upload releases, read the repository's metadata | | yes | | | yes |
| assign: say what devices run | | | yes | | yes |
| command: ask devices for logs and other things, configure their agents | | | yes | | yes |
| follow: learn whom a broker has to refuse; in the default tenant | | | | yes | yes |
| decommission: shut a device out for good | | | | | yes |
| administer: users, tokens and the audit trail of the tenant | | | | | yes |
"""

from enum import StrEnum


class Permission(StrEnum):
    """What a route may ask for."""

    READ = "read"
    PUBLISH = "publish"
    ASSIGN = "assign"
    COMMAND = "command"
    FOLLOW = "follow"
    DECOMMISSION = "decommission"
    ADMINISTER = "administer"


class Role(StrEnum):
    """What a token carries. Publisher and operator are two people: neither includes the other."""

    VIEWER = "viewer"
    PUBLISHER = "publisher"
    OPERATOR = "operator"
    BROKER = "broker"
    ADMIN = "admin"


PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset({Permission.READ}),
    Role.PUBLISHER: frozenset({Permission.READ, Permission.PUBLISH}),
    Role.OPERATOR: frozenset({Permission.READ, Permission.ASSIGN, Permission.COMMAND}),
    Role.BROKER: frozenset({Permission.FOLLOW}),
    Role.ADMIN: frozenset(Permission),
}


def holders(permission: Permission) -> str:
    """Return the roles that have a permission, as words for a message."""
    return " or ".join(role for role in Role if permission in PERMISSIONS[role])
