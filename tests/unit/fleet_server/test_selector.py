"""The selector language: what it reads, what it refuses and where, and that SQL says the same."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, delete, insert, select

from fleet_server.database import Base
from fleet_server.devices import attributes, selection, terms
from fleet_server.devices.attributes import Facts, Labels
from fleet_server.devices.selector import (
    ID,
    MAX_REQUIREMENTS,
    AnyOf,
    Compared,
    Comparison,
    Has,
    Lacks,
    NoneOf,
    Requirement,
    Selector,
    SelectorError,
    number_of,
    parse,
)
from fleet_server.devices.tables import Device, DeviceTerm

NAMES = ("id", "site", "ram_gib", "accelerator", "legacy", "runs.a_b")
VALUES = ("oslo", "bergen", "edgetpu", "4", "7.5", "1.0.0-rc1", "cam-1")

EDGE = {
    "id": {"cam-1"},
    "site": {"oslo"},
    "accelerator": {"edgetpu", "cpu"},
    "ram_gib": {"3.8"},
}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("*", True),
        ("site=oslo", True),
        (" site == oslo ", True),
        ("site=Oslo", False),
        ("site", True),
        ("!site", False),
        ("legacy", False),
        ("!legacy", True),
        ("site!=oslo", False),
        ("legacy!=true", True),
        ("accelerator=cpu", True),
        ("accelerator!=cpu", False),
        ("accelerator in (cuda, edgetpu)", True),
        ("accelerator notin (cuda,openvino)", True),
        ("accelerator notin (cuda,cpu)", False),
        ("ram_gib>=3.8", True),
        ("ram_gib>3.8", False),
        ("ram_gib<4", True),
        ("ram_gib<=3", False),
        ("site>1", False),
        ("legacy>=-1", False),
        ("id in (cam-1,cam-2)", True),
        ("site=oslo,accelerator in (edgetpu,cuda),!legacy,ram_gib>=2", True),
        ("site=oslo,legacy", False),
        ("in in (in)", False),
    ],
)
def test_what_it_selects(text: str, *, selected: bool) -> None:
    assert parse(text).holds(EDGE) is selected


@pytest.mark.parametrize(
    ("text", "position", "problem"),
    [
        ("", 0, "is empty"),
        ("   ", 0, "is empty"),
        ("site=", 5, "expected a value"),
        ("site=oslo,", 10, "expected the name"),
        ("site=oslo legacy", 10, "comma or the end"),
        ("site within (a)", 5, "expected an operator"),
        ("site in oslo", 8, "expected '('"),
        ("site in (oslo", 13, "expected ')'"),
        ("site in ()", 9, "expected a value"),
        ("Site=oslo", 0, "is not a label name"),
        ("a,site=oslo-", 7, "is not a label value"),
        ("site=o$lo", 6, "'$' has no meaning"),
        ("ram_gib>=two", 9, "is not a number"),
        ("ram_gib>=1.2.3", 9, "is not a number"),
        ("id>3", 2, "an id is no number"),
        ("*,site", 1, "comma or the end"),
        ("!!site", 1, "expected the name"),
        ("a," * MAX_REQUIREMENTS + "a", 2 * MAX_REQUIREMENTS, "may have 16 requirements"),
        ("a in (" + "b," * 64 + "b)", 6 + 2 * 64, "may name 64 values"),
        ("a" * 2001, 2000, "may have 2000 characters"),
    ],
)
def test_what_it_refuses_and_where(text: str, position: int, problem: str) -> None:
    with pytest.raises(SelectorError, match=f"character {position + 1}: ") as refused:
        parse(text)
    assert refused.value.position == position
    assert problem in str(refused.value)


names = st.sampled_from(NAMES)
some_values = st.lists(st.sampled_from(VALUES), min_size=1, max_size=3).map(
    lambda values: tuple(sorted(set(values)))
)
numbers = st.integers(-20_000_000, 20_000_000).map(lambda number: number / 1_000_000)
requirements: st.SearchStrategy[Requirement] = st.one_of(
    st.builds(Has, names),
    st.builds(Lacks, names),
    st.builds(AnyOf, names, some_values),
    st.builds(NoneOf, names, some_values),
    st.builds(Compared, st.sampled_from(NAMES[1:]), st.sampled_from(list(Comparison)), numbers),
)
selectors = st.lists(requirements, max_size=4).map(lambda each: Selector(tuple(each)))


@given(selectors)
def test_a_selector_reads_back_as_itself(selector: Selector) -> None:
    assert parse(str(selector)) == selector


@given(st.text(alphabet="abin_ (),=!<>*.-019$\n", max_size=40))
def test_any_text_is_read_or_refused_inside_it(text: str) -> None:
    try:
        selector = parse(text)
    except SelectorError as error:
        position = error.position
    else:
        assert parse(str(selector)) == selector
        position = 0
    assert 0 <= position <= len(text)


labels = st.dictionaries(st.sampled_from(("site", "legacy")), st.sampled_from(VALUES))
facts = st.dictionaries(
    st.sampled_from(("ram_gib", "accelerator", "runs.a_b")),
    st.lists(st.sampled_from(VALUES), min_size=1, max_size=3, unique=True),
)
fleets = st.dictionaries(
    st.sampled_from([f"cam-{number}" for number in range(5)]), st.tuples(labels, facts), min_size=1
)


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def store(connection: Connection, fleet: dict[str, tuple[Labels, Facts]]) -> None:
    connection.execute(delete(DeviceTerm))
    connection.execute(delete(Device))
    blank = dict.fromkeys(
        ("public_key_pem", "public_key_sha256", "certificate_pem", "certificate_serial"), ""
    )
    blank_numbers = {"certificate_expires_ms": 0, "enrolled_ms": 0, "online": False}
    for device_id, (its_labels, its_facts) in fleet.items():
        connection.execute(insert(Device).values(id=device_id, **blank, **blank_numbers))
        for name, value in {(ID, device_id), *its_labels.items(), *terms.pairs(its_facts)}:
            row = {"name": name, "value": value, "number": number_of(value)}
            connection.execute(insert(DeviceTerm).values(device_id=device_id, **row))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(fleet=fleets, selector=selectors, after=st.sampled_from(("", "cam-1", "cam-3")))
def test_sql_selects_what_the_selector_says(
    connection: Connection,
    fleet: dict[str, tuple[Labels, Facts]],
    selector: Selector,
    after: str,
) -> None:
    store(connection, fleet)
    condition = selection.selected(selector)
    found = connection.scalars(select(Device.id).where(Device.id > after, condition))
    assert set(found) == {
        device_id
        for device_id, (its_labels, its_facts) in fleet.items()
        if device_id > after and selector.holds(attributes.merged(device_id, its_labels, its_facts))
    }
