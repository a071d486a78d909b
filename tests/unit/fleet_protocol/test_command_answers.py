"""What a device may say in answer to a command is bounded item by item, and as a whole."""

import msgspec
import pytest

from fleet_protocol.command_answers import (
    MAX_LISTED,
    MAX_RESULT_BYTES,
    MAX_SAID,
    Answer,
    BenchResult,
    BenchRow,
    LogResult,
    Outcome,
    Result,
    decode_answer,
    fits,
)
from fleet_protocol.errors import ProtocolError

ROW = BenchRow(
    family="animals",
    version="1.0.0",
    variant="int8",
    backend="onnx",
    accelerator="cpu",
    fastest_ms=1.0,
)


def answer(result: Result) -> bytes:
    made = Answer(command_id="0" * 32, outcome=Outcome.DONE, detail="", ended_ms=1, result=result)
    return msgspec.json.encode(made)


@pytest.mark.parametrize(
    ("row", "count", "refusal"),
    [
        (ROW, MAX_LISTED, ""),
        (ROW, MAX_LISTED + 1, "`result.rows` must be a list of length <= 256"),
        (msgspec.structs.replace(ROW, choice="x" * (MAX_SAID + 1)), 1, r"rows\[0\]\.choice"),
        (msgspec.structs.replace(ROW, choice="\x1b" * MAX_SAID), MAX_LISTED, "at most 262144"),
    ],
)
def test_bounds(row: BenchRow, count: int, refusal: str) -> None:
    given = answer(BenchResult(rows=[row] * count))
    if refusal:
        with pytest.raises(ProtocolError, match=refusal):
            decode_answer(given)
    else:
        assert decode_answer(given).outcome is Outcome.DONE


def test_a_log_may_be_larger() -> None:
    assert fits(LogResult(content=bytes(MAX_RESULT_BYTES + 1), lines=1))
