"""What is derived from ids and names says of them what lists take from it."""

from hypothesis import given
from hypothesis import strategies as st

from fleet_server.devices import derived

IDS = st.from_regex(r"\A[a-c0-2](?:[a-c0-2-]{0,5}[a-c0-2])?\Z")
TEXTS = st.text("abc012-", min_size=1, max_size=4).filter(derived.stem)
"""Not of digits alone: stems say nothing of those."""


@given(ids=st.lists(IDS, min_size=1, max_size=8), text=TEXTS)
def test_stems_tell_which_ids_may_contain_a_text(ids: list[str], text: str) -> None:
    found = derived.stems_with(text, sorted({derived.stem(each) for each in ids}))
    for each in ids:
        if derived.stem(each) in found.certain:
            assert text in each
        elif text in each:
            assert derived.stem(each) in found.possible


def test_the_key_of_names_depends_on_their_set_alone() -> None:
    assert derived.names_key(["b", "a", "b"]) == derived.names_key({"a", "b"})
    assert len({derived.names_key(each) for each in ([], ["a"], ["b"], ["a", "b"])}) == 4
