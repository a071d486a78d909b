"""What a device answers to a command: how it ended, and what it found out.

An answer is sent until the server has committed it; the first one of a command counts.
"""

from enum import StrEnum
from typing import Annotated, Literal

import msgspec

from fleet_protocol.errors import ProtocolError
from fleet_protocol.histogram import Count
from fleet_protocol.messages import LongText, ShortText, UnixMs
from fleet_protocol.names import Family, Version
from fleet_protocol.unreadable import problem
from fleet_protocol.update_states import UpdateState

ROUTE = "/device/v1/answers"
MAX_LOG_BYTES = 1024 * 1024
"""Of a compressed excerpt of the log."""

MAX_ANSWER_BYTES = 2 * 1024 * 1024
MAX_RESULT_BYTES = 256 * 1024
"""Of a result other than a log, as JSON."""

MAX_SAID = 300
Said = Annotated[str, msgspec.Meta(max_length=MAX_SAID)]
"""A sentence in a list of many."""

MAX_LISTED = 256
MAX_LIBRARIES = 64

CommandId = Annotated[
    str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z", description="32 hexadecimal digits")
]


class Outcome(StrEnum):
    """How a command ended."""

    DONE = "done"
    FAILED = "failed"
    """It was begun and did not succeed."""
    REFUSED = "refused"
    """It was not begun; `detail` says why."""
    INTERRUPTED = "interrupted"
    """The device died while it ran; how far it came is not known."""


class _Result(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What was found out."""


class UpdateFact(msgspec.Struct, frozen=True, kw_only=True):
    """Where the newest update of a family stands."""

    family: Family
    version: Version
    state: UpdateState
    attempts: Count = 0
    detail: Said = ""


class ServingFact(msgspec.Struct, frozen=True, kw_only=True):
    """A release that answers calls now, whatever became of the newest update.

    Attributes:
        committed: False on probation, when the device may still go back.
    """

    family: Family
    version: Version
    variant: ShortText
    backend: ShortText
    accelerator: ShortText
    committed: bool


class DiagnosticsResult(_Result, frozen=True, kw_only=True, tag="diagnostics"):
    """How the device is; None where it could not be found out.

    Attributes:
        clock_ahead_s: the floor of the trusted time over the machine's clock; above 0 the clock is
            wrong.
        clock_synchronised: what the kernel says of it.
        server_ms: how long the server took to answer; None if it did not.
        serving: what the runtime serves.
        updates: where the newest update of each family stands, which may be one that failed.
        libraries: name of each usable backend and of the main libraries to their version.
    """

    agent_version: ShortText
    python_version: ShortText
    system: ShortText
    libraries: Annotated[dict[ShortText, ShortText], msgspec.Meta(max_length=MAX_LIBRARIES)] = {}
    uptime_s: float | None = None
    disk_total_bytes: Count | None = None
    disk_free_bytes: Count | None = None
    state_bytes: Count | None = None
    memory_total_bytes: Count | None = None
    memory_available_bytes: Count | None = None
    load_1_min: float | None = None
    temperature_celsius: float | None = None
    runtime_resident_bytes: Count | None = None
    runtime_up: bool = False
    runtime_failed: Annotated[dict[Family, Said], msgspec.Meta(max_length=MAX_LISTED)] = {}
    clock_ms: UnixMs
    clock_ahead_s: float = 0.0
    clock_synchronised: bool | None = None
    broker_connected: bool
    server_ms: float | None = None
    server_problem: Said = ""
    certificate_expires_ms: UnixMs | None = None
    assignment_version: Count = 0
    outbox: Annotated[dict[ShortText, Count], msgspec.Meta(max_length=MAX_LIBRARIES)] = {}
    serving: Annotated[list[ServingFact], msgspec.Meta(max_length=MAX_LISTED)] | None = None
    updates: Annotated[list[UpdateFact], msgspec.Meta(max_length=MAX_LISTED)] = []


class LogResult(_Result, frozen=True, kw_only=True, tag="logs"):
    """An excerpt of the log.

    Attributes:
        content: JSON lines, redacted, compressed with gzip.
        lines: in it.
        left_out: lines that were asked for and did not fit.
        redacted: places at which something was taken out.
    """

    content: Annotated[bytes, msgspec.Meta(max_length=MAX_LOG_BYTES)]
    lines: Count
    left_out: Count = 0
    redacted: Count = 0


class BenchRow(msgspec.Struct, frozen=True, kw_only=True):
    """How fast one release runs.

    Attributes:
        fastest_ms: the shortest runs of the golden inputs, their mean; None if it did not run.
        choice: why this variant runs here.
    """

    family: Family
    version: Version
    variant: ShortText
    backend: ShortText
    accelerator: ShortText
    fastest_ms: float | None
    choice: Said = ""
    problem: Said = ""


class BenchResult(_Result, frozen=True, kw_only=True, tag="bench"):
    """The releases that serve, timed beside live calls at low priority."""

    rows: Annotated[list[BenchRow], msgspec.Meta(max_length=MAX_LISTED)]


class RestartResult(_Result, frozen=True, kw_only=True, tag="restart_runtime"):
    """How long nothing was served.

    Attributes:
        away_s: from the end of the old process until the new one answered.
    """

    away_s: float


Result = DiagnosticsResult | LogResult | BenchResult | RestartResult


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command.

    Attributes:
        detail: a sentence for the operator.
        begun_ms: absent if it was not begun.
    """

    schema: Literal[1] = 1
    command_id: CommandId
    outcome: Outcome
    detail: LongText
    begun_ms: UnixMs | None = None
    ended_ms: UnixMs
    result: Result | None = None


def fits(result: Result) -> bool:
    """Say whether a result is as small as its kind has to be."""
    return isinstance(result, LogResult) or len(msgspec.json.encode(result)) <= MAX_RESULT_BYTES


def decode_answer(payload: bytes) -> Answer:
    """Read an answer.

    Raises:
        ProtocolError: it is too large, or none; the text names the field.
    """
    if len(payload) > MAX_ANSWER_BYTES:
        raise ProtocolError(
            f"an answer has {len(payload)} bytes, at most {MAX_ANSWER_BYTES} are read"
        )
    try:
        answer = msgspec.json.decode(payload, type=Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not an answer: {problem(error, Answer)}") from error
    if answer.result is not None and not fits(answer.result):
        raise ProtocolError(f"a result has at most {MAX_RESULT_BYTES} bytes, unless it is a log")
    return answer
