"""The table of what to do: each row a situation and its actions."""

from dataclasses import replace

import msgspec
import pytest

from edge_agent.control.journal import UpdateRecord
from edge_agent.control.reconcile import (
    Action,
    Begin,
    Commit,
    Compare,
    Fetch,
    GiveUp,
    Remove,
    Repair,
    Serve,
    Situation,
    StopFamily,
    Try,
    Unload,
    Watch,
    reconcile,
)
from edge_agent.runtime_api import Placement
from fleet_protocol.manifest import Format
from fleet_protocol.update_states import UpdateState as S
from tests.unit.edge_agent.control.situations import (
    DOWNLOAD_AHEAD,
    EMPTY,
    GONE,
    HELD,
    SETTLED_ON_1,
    UNREADABLE,
    WANTS_2,
    WITHDRAWN,
    F,
    active,
    assignment,
    record,
    ref,
    runtime,
    under_way,
    wanted,
)

REPAIR = Repair(active("1.0.0"), ref("1.0.0"))
RESTARTED = "the runtime restarted during the probation"
SUPERSEDED = "the assignment no longer asks for it"

TABLE: dict[str, tuple[Situation, list[Action]]] = {
    "held: nothing begins": (replace(WANTS_2, waiting=HELD), []),
    "held: a download stops": (replace(under_way(S.DOWNLOADING), waiting=HELD), []),
    "held: no trial": (replace(under_way(S.VERIFIED), waiting=HELD), []),
    "held: no trial again after a crash": (replace(under_way(S.TRIAL), waiting=HELD), []),
    "held: given up all the same": (
        replace(under_way(S.DOWNLOADING, "3.0.0"), waiting=HELD),
        [GiveUp(F, SUPERSEDED, retry=True)],
    ),
    "ahead: it begins": (replace(WANTS_2, waiting=DOWNLOAD_AHEAD), [Begin(wanted("2.0.0"))]),
    "ahead: it comes": (replace(under_way(S.DOWNLOADING), waiting=DOWNLOAD_AHEAD), [Fetch(F)]),
    "ahead: it is not tried": (replace(under_way(S.VERIFIED), waiting=DOWNLOAD_AHEAD), []),
    "held: a damaged file does not bring the next release forward": (
        replace(WANTS_2, waiting=HELD, damaged=GONE),
        [REPAIR],
    ),
    "held: a repair does not wait": (
        replace(SETTLED_ON_1, waiting=HELD, damaged=GONE),
        [REPAIR],
    ),
    "held: what is committed is verified anew": (
        replace(SETTLED_ON_1, waiting=HELD, records={F: record(S.VERIFIED, "1.0.0")}),
        [Try(F)],
    ),
    "nothing assigned yet, nothing there": (EMPTY, []),
    "nothing assigned yet, an active set is there": (
        replace(SETTLED_ON_1, assignment=None, committed={}),
        [],
    ),
    "nothing assigned yet, and the runtime serves less than active.json": (
        replace(SETTLED_ON_1, assignment=None, runtime=runtime()),
        [Serve(active("1.0.0"))],
    ),
    "first assignment": (
        replace(EMPTY, assignment=assignment("1.0.0")),
        [Begin(wanted("1.0.0"))],
    ),
    "as it shall be": (SETTLED_ON_1, []),
    "as it shall be, the runtime is away": (replace(SETTLED_ON_1, runtime=None), []),
    "another release assigned": (WANTS_2, [Begin(wanted("2.0.0"))]),
    "another release assigned, but the assignment expired": (
        replace(WANTS_2, may_install=False),
        [],
    ),
    "active.json has it, the journal has not": (
        replace(SETTLED_ON_1, committed={}),
        [Begin(wanted("1.0.0"))],
    ),
    "the journal has it, active.json has not": (
        replace(SETTLED_ON_1, active={}, runtime=runtime()),
        [Begin(wanted("1.0.0"))],
    ),
    "same version, another manifest": (
        replace(
            SETTLED_ON_1,
            assignment=msgspec.structs.replace(
                assignment("1.0.0"),
                releases={F: msgspec.structs.replace(wanted("1.0.0"), manifest=ref("3.0.0"))},
            ),
        ),
        [Begin(msgspec.structs.replace(wanted("1.0.0"), manifest=ref("3.0.0")))],
    ),
    "it failed under this assignment": (
        under_way(S.FAILED, retry=False),
        [],
    ),
    "it failed under an older assignment": (
        under_way(S.FAILED, retry=False, assignment_version=6),
        [Begin(wanted("2.0.0"))],
    ),
    "it was rolled back and may be tried again": (
        under_way(S.ROLLED_BACK, retry=True),
        [Begin(wanted("2.0.0"))],
    ),
    "another release failed": (
        under_way(S.FAILED, version="3.0.0"),
        [Begin(wanted("2.0.0"))],
    ),
    "downloading": (under_way(S.DOWNLOADING), [Fetch(F)]),
    "downloading, the runtime is away": (
        replace(under_way(S.DOWNLOADING), runtime=None),
        [Fetch(F)],
    ),
    "downloading, the assignment expired": (
        replace(under_way(S.DOWNLOADING), may_install=False),
        [],
    ),
    "downloading what is no longer wanted": (
        under_way(S.DOWNLOADING, version="3.0.0"),
        [GiveUp(F, SUPERSEDED, retry=True)],
    ),
    "verified": (under_way(S.VERIFIED), [Try(F)]),
    "verified, the runtime is away": (replace(under_way(S.VERIFIED), runtime=None), []),
    "verified, the assignment expired": (
        replace(under_way(S.VERIFIED), may_install=False),
        [],
    ),
    "trial cut short, the candidate is loaded": (
        replace(under_way(S.TRIAL), runtime=runtime("1.0.0", "2.0.0", serving="1.0.0")),
        [Try(F)],
    ),
    "shadowing": (under_way(S.TRIAL, shadow_epoch="e1", attempts=3), [Compare(F)]),
    "shadowing, the runtime restarted": (under_way(S.TRIAL, shadow_epoch="e0"), [Try(F)]),
    "shadowing, the runtime is away": (
        replace(under_way(S.TRIAL, shadow_epoch="e1"), runtime=None),
        [],
    ),
    "shadowing what is no longer wanted": (
        under_way(S.TRIAL, version="3.0.0", shadow_epoch="e1"),
        [GiveUp(F, SUPERSEDED, retry=True)],
    ),
    "third trial cut short": (
        under_way(S.TRIAL, attempts=3, detail="the runtime died"),
        [
            GiveUp(
                F,
                "3 attempts did not get through, the last one because: the runtime died",
                retry=False,
            )
        ],
    ),
    "trial of what is no longer wanted": (
        under_way(S.TRIAL, version="3.0.0"),
        [GiveUp(F, SUPERSEDED, retry=True)],
    ),
    "probation": (
        replace(under_way(S.PROBATION), runtime=runtime("1.0.0", "2.0.0", serving="2.0.0")),
        [Watch(F)],
    ),
    "probation, the runtime is away": (replace(under_way(S.PROBATION), runtime=None), []),
    "probation, the runtime restarted": (
        replace(under_way(S.PROBATION), runtime=runtime("1.0.0", serving="1.0.0", epoch="e2")),
        [GiveUp(F, RESTARTED, retry=True)],
    ),
    "third probation, the runtime restarted": (
        replace(
            under_way(S.PROBATION, attempts=3),
            runtime=runtime("1.0.0", serving="1.0.0", epoch="e2"),
        ),
        [GiveUp(F, RESTARTED, retry=False)],
    ),
    "probation, a roll-back was cut short": (
        replace(under_way(S.PROBATION), runtime=runtime("1.0.0", "2.0.0", serving="1.0.0")),
        [GiveUp(F, "the runtime no longer serves the candidate", retry=True)],
    ),
    "probation, active.json names the candidate": (
        replace(under_way(S.PROBATION), active={F: active("2.0.0")}, runtime=None),
        [Commit(F)],
    ),
    "probation, active.json names the candidate, another one is wanted": (
        replace(
            under_way(S.PROBATION),
            active={F: active("2.0.0")},
            assignment=assignment("3.0.0"),
            runtime=runtime("2.0.0", serving="2.0.0", epoch="e2"),
        ),
        [Commit(F)],
    ),
    "the candidate serves, and the journal has it in its trial": (
        replace(under_way(S.TRIAL), runtime=runtime("1.0.0", "2.0.0", serving="2.0.0")),
        [Serve(active("1.0.0"))],
    ),
    "so it does, held, with all attempts used up": (
        replace(
            under_way(S.TRIAL, attempts=3),
            waiting=HELD,
            runtime=runtime("1.0.0", "2.0.0", serving="2.0.0"),
        ),
        [Serve(active("1.0.0"))],
    ),
    "so it does, and nothing was committed before": (
        replace(
            under_way(S.TRIAL), active={}, committed={}, runtime=runtime("2.0.0", serving="2.0.0")
        ),
        [StopFamily(F)],
    ),
    "probation of what is no longer wanted": (
        replace(
            under_way(S.PROBATION, version="3.0.0"),
            runtime=runtime("1.0.0", "3.0.0", serving="3.0.0"),
        ),
        [GiveUp(F, SUPERSEDED, retry=True)],
    ),
    "what is on probation was withdrawn": (
        replace(
            under_way(S.PROBATION),
            withdrawn=WITHDRAWN,
            runtime=runtime("1.0.0", "2.0.0", serving="2.0.0"),
        ),
        [GiveUp(F, "mislabelled", retry=False)],
    ),
    "what was verified was withdrawn before its time": (
        replace(under_way(S.VERIFIED), withdrawn=WITHDRAWN, waiting=HELD),
        [GiveUp(F, "mislabelled", retry=False)],
    ),
    "what was withdrawn is in active.json already": (
        replace(
            under_way(S.PROBATION),
            withdrawn=WITHDRAWN,
            active={F: active("2.0.0")},
            runtime=runtime("2.0.0", serving="2.0.0"),
        ),
        [Commit(F)],
    ),
    "the family is no longer assigned": (
        replace(SETTLED_ON_1, assignment=assignment()),
        [Remove(F)],
    ),
    "the family is no longer assigned, its update is under way": (
        replace(under_way(S.DOWNLOADING), assignment=assignment()),
        [GiveUp(F, SUPERSEDED, retry=True)],
    ),
    "a removal was cut short after active.json": (
        replace(SETTLED_ON_1, assignment=assignment(), active={}),
        [Remove(F)],
    ),
    "the runtime serves what nobody committed": (
        replace(
            EMPTY,
            assignment=assignment("2.0.0"),
            records={F: record(S.FAILED)},
            runtime=runtime("2.0.0", serving="2.0.0"),
        ),
        [StopFamily(F)],
    ),
    "the runtime serves another release than the committed one": (
        replace(SETTLED_ON_1, runtime=runtime("1.0.0", "2.0.0", serving="2.0.0")),
        [Serve(active("1.0.0"))],
    ),
    "an old release is still loaded": (
        replace(SETTLED_ON_1, runtime=runtime("0.9.0", "1.0.0", serving="1.0.0")),
        [Unload(F, "0.9.0")],
    ),
    "the runtime could not load the committed release, its file is whole": (
        replace(
            SETTLED_ON_1,
            records={F: record(S.FAILED, version="1.0.0")},
            runtime=msgspec.structs.replace(runtime(), failed={F: "not enough memory"}),
        ),
        [Serve(active("1.0.0"))],
    ),
    "the committed file is gone": (
        replace(SETTLED_ON_1, runtime=runtime(), damaged=GONE),
        [REPAIR],
    ),
    "the committed file is gone, but it serves": (
        replace(SETTLED_ON_1, damaged=GONE),
        [REPAIR],
    ),
    "the committed file cannot be read now": (
        replace(SETTLED_ON_1, runtime=runtime(), damaged=UNREADABLE),
        [REPAIR, Serve(active("1.0.0"))],
    ),
    "the committed file is damaged, the assignment expired": (
        replace(SETTLED_ON_1, damaged=GONE, may_install=False),
        [REPAIR],
    ),
    "the committed file is damaged, and nothing is assigned yet": (
        replace(SETTLED_ON_1, damaged=GONE, assignment=None),
        [REPAIR],
    ),
    "the committed file is damaged, another release comes": (
        replace(under_way(S.DOWNLOADING), damaged=GONE),
        [Fetch(F), REPAIR],
    ),
    "the committed file is damaged, another release is on probation": (
        replace(
            under_way(S.PROBATION), damaged=GONE, runtime=runtime("1.0.0", "2.0.0", serving="2.0.0")
        ),
        [Watch(F), REPAIR],
    ),
    "the committed file is damaged, another release has failed": (
        replace(under_way(S.FAILED), damaged=GONE, runtime=runtime()),
        [REPAIR],
    ),
    "the committed file is damaged, the journal does not know the release": (
        replace(SETTLED_ON_1, committed={}, damaged=GONE),
        [Begin(wanted("1.0.0"))],
    ),
    "the committed file is damaged, the family is no longer assigned": (
        replace(SETTLED_ON_1, damaged=GONE, assignment=assignment()),
        [Remove(F)],
    ),
    "the accelerator of the committed release is gone": (
        replace(
            SETTLED_ON_1,
            runtime=msgspec.structs.replace(
                runtime(),
                failed={F: "no accelerator"},
                placements=[
                    Placement(
                        backend="b",
                        version="",
                        format=Format.ONNX,
                        accelerator="cpu",
                        problem="gone",
                    )
                ],
            ),
        ),
        [Begin(wanted("1.0.0")), Serve(active("1.0.0"))],
    ),
    "the journal knows what active.json lost": (
        replace(SETTLED_ON_1, active={}, assignment=None),
        [],
    ),
}


@pytest.mark.parametrize("row", TABLE)
def test_the_table(row: str) -> None:
    situation, actions = TABLE[row]
    # Unloading beside an update that moves on is neither here nor there.
    found = [a for a in reconcile(situation) if not isinstance(a, Unload) or a in actions]
    assert found == actions


def test_families_are_independent() -> None:
    other = UpdateRecord(
        family="plants",
        version="1.0.0",
        manifest=ref("1.0.0"),
        assignment_version=7,
        state=S.FAILED,
    )
    situation = replace(WANTS_2, records={"plants": other})
    assert reconcile(situation) == [Begin(wanted("2.0.0")), Remove("plants")]


@pytest.mark.parametrize("state", [S.TRIAL, S.PROBATION])
def test_the_committed_release_stays_loaded_while_a_candidate_is_tried(state: S) -> None:
    situation = replace(under_way(state), runtime=runtime("1.0.0", "2.0.0", serving="2.0.0"))
    assert not any(isinstance(action, Unload) for action in reconcile(situation))
