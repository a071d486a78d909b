"""The end of the interactive demo: the result, and where to look while everything stays up."""

import contextlib
import threading

from rich.console import Console
from rich.table import Table

from skerry.demo.layout import DEVICES, FAMILY, HOST
from skerry.demo.verdict import Verdict
from skerry.demo.world import World


def until_interrupted(world: World, verdict: Verdict, console: Console) -> None:
    """Show what was measured and how to look at it; return on Ctrl-C."""
    console.print()
    console.print(_table(verdict))
    token_file = world.directory.token_file("viewer")
    curl = (
        f'curl --cacert {world.ca_file} -H "Authorization: Bearer $(cat {token_file})" {world.url}'
    )
    model_url = f"http://{HOST}:{world.ports.devices[0]}/v2/models/{FAMILY}"
    socket = world.directory.device(DEVICES[0]) / "run" / "runtime.sock"
    for title, text in (
        ("Devices", f"{curl}/api/v1/devices"),
        ("Releases", f"{curl}/api/v1/releases"),
        ("Telemetry of the fleet", f"{curl}/api/v1/telemetry/summary"),
        ("API description (OpenAPI)", f"{curl}/api/v1/openapi.json"),
        ("Token (viewer)", token_file.read_text().strip()),
        (f"The model on {DEVICES[0]}", f"curl {model_url}"),
        ("The same over the Unix socket", f"curl --unix-socket {socket} {model_url}"),
        ("Logs", str(world.directory.logs)),
    ):
        console.print(f"[bold]{title}[/]\n  {text}", soft_wrap=True)
    world.start_traffic()
    console.print("\nEverything stays up, and images go on being sent. Ctrl-C ends it.")
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def _table(verdict: Verdict) -> Table:
    table = Table(title="What was claimed, and what was seen", title_justify="left")
    table.add_column("claim")
    table.add_column("held")
    for claim, held in verdict.claims.items():
        table.add_row(claim, "[green]yes[/]" if held else "[red]no[/]")
    requests, windows = verdict.requests, verdict.telemetry_windows
    table.caption = (
        f"{requests.sent} calls, {requests.failed} failed, p50 {verdict.latency_ms.p50} ms, "
        f"p99 {verdict.latency_ms.p99} ms, longest gap {requests.longest_gap_s} s; "
        f"{windows.sent} telemetry windows sent, {windows.stored} stored"
    )
    return table
