"""Says to whoever gives a command what of the fleet's trust runs out soon."""

from fleet_server.operator_client import ApiError, OperatorClient
from fleet_server.operator_output import warn

_TIMEOUT_S = 3.0


def warn_of_expiries(client: OperatorClient) -> None:
    """Say it on standard error; a server that does not tell is for the command to complain of."""
    try:
        answer = client.get("/api/v1/trust/expiries", timeout_s=_TIMEOUT_S)
    except ApiError:
        return
    for item in answer.get("expiries", ()):
        if item["level"] != "ok":
            warn(
                f"{item['level'].upper()}: {item['name']} has {item['days_left']:.1f} days left; "
                f"{item['action']}"
            )
