"""`skerry fleet telemetry`, over the server's API."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from fleet_server.operator_client import part
from fleet_server.operator_options import AsJson, CaFile, Server, TokenFile, connected
from fleet_server.operator_output import print_json, print_table


def telemetry(  # noqa: PLR0913 (each is an option that a person gives)
    *,
    server: Server,
    token_file: TokenFile,
    ca: CaFile = None,
    device: Annotated[str | None, typer.Option(help="Only this device.")] = None,
    hours: Annotated[float, typer.Option(min=0.01, max=744, help="How far back.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Sum up what the fleet (or one device) did: requests, errors, latency by release.

    Example: `skerry fleet telemetry --hours 24 --server URL --token-file token`
    """
    client = connected(server, token_file, ca)
    end = int(datetime.now(UTC).timestamp() * 1000) + 1
    fields = {"from": str(end - int(hours * 3_600_000)), "to": str(end)}
    path = "/api/v1/telemetry/summary"
    if device is not None:
        path = f"/api/v1/telemetry/devices/{part(device)}/summary"
    answer = client.get(path, fields)
    if as_json:
        print_json(answer)
        return
    print_table(
        ("family", "version", "devices", "requests", "errors", "p50 ms", "p95 ms", "p99 ms"),
        [
            [
                item["family"],
                item["version"],
                str(item["devices"]),
                f"{item['requests']:,}",
                f"{sum(item['errors'].values()):,}",
                *(_ms(item["latency"][key]) for key in ("p50_us", "p95_us", "p99_us")),
            ]
            for item in answer["releases"]
        ],
        numbers={"devices", "requests", "errors", "p50 ms", "p95 ms", "p99 ms"},
        empty="No telemetry of that time is stored.",
    )


def _ms(microseconds: float | None) -> str:
    return "-" if microseconds is None else f"{microseconds / 1000:.2f}"
