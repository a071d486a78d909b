"""`skerry fleet`: what operators do from anywhere, over the server's API.

Each feature has its commands beside it; here they get their names. What there is: the plural. What
is done to one of them: the singular.
"""

import typer

from fleet_server.accounts import login_cli, token_cli, user_cli
from fleet_server.accounts.claim_cli import claim_admin
from fleet_server.alerts import cli as alerts
from fleet_server.alerts import webhook_cli
from fleet_server.audit import cli as audit
from fleet_server.commands import cli as commands
from fleet_server.commands import configuration_cli
from fleet_server.devices import cli as devices
from fleet_server.devices import group_cli
from fleet_server.releases import cli as releases
from fleet_server.rollouts import cli as rollouts
from fleet_server.rollouts import following_cli
from fleet_server.telemetry import cli as telemetry
from fleet_server.trust import fleet_cli

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Look at devices, releases and telemetry, roll releases out, and look after the fleet, "
    "over the server's API. Each command says on standard error what of the fleet's trust runs "
    "out soon.",
)

app.command()(devices.devices)
app.command()(devices.label)
app.command()(devices.events)
app.command()(devices.revoke)
app.command()(devices.decommission)
app.command("groups")(group_cli.list_groups)
app.add_typer(group_cli.app, name="group")
app.command()(releases.releases)
app.command()(releases.release)
app.command()(releases.assign)
app.command("rollouts")(following_cli.list_rollouts)
app.add_typer(rollouts.app, name="rollout")
app.command()(telemetry.telemetry)
app.command("alerts")(alerts.list_alerts)
app.add_typer(alerts.app, name="alert")
app.command("silences")(alerts.list_silences)
app.add_typer(alerts.silences, name="silence")
app.command("webhooks")(webhook_cli.list_webhooks)
app.add_typer(webhook_cli.app, name="webhook")
app.add_typer(commands.app, name="command")
app.command("logs")(commands.logs)
app.add_typer(configuration_cli.app, name="config")
app.command()(fleet_cli.adopt)
app.command()(fleet_cli.expiries)
app.command()(login_cli.login)
app.command()(login_cli.logout)
app.command()(login_cli.whoami)
app.command()(login_cli.password)
app.command("users")(user_cli.list_users)
app.add_typer(user_cli.app, name="user")
app.command("tokens")(token_cli.list_tokens)
app.add_typer(token_cli.app, name="token")
app.add_typer(audit.app, name="audit")
app.command("claim-admin")(claim_admin)
