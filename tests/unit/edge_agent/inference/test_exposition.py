"""The Prometheus writer, held against the parser of Prometheus' own client library."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from edge_agent.inference.exposition import Distribution, Exposition, label_text

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=20)
values = st.floats(allow_nan=False)


@given(texts, texts, values, st.integers(0, 2**63))
def test_what_is_written_is_read(text: str, other: str, gauge: float, count: int) -> None:
    page = Exposition()
    labels = {"one": text, "two": other}
    page.gauge("a_gauge", f"Some {text.strip()} text.", gauge, label_text(labels))
    page.counter("b_total", "Counted.", count)
    page.gauge("a_gauge", "ignored the second time", 1)
    a, b = text_string_to_metric_families(page.text().decode())
    assert (a.name, a.type) == ("a_gauge", "gauge")
    assert [(sample.labels, sample.value) for sample in a.samples] == [(labels, gauge), ({}, 1.0)]
    assert (b.name, b.type) == ("b", "counter")
    assert b.samples[0].value == count


def test_histograms_are_cumulated() -> None:
    page = Exposition()
    page.histogram("h", "Help.", Distribution((0.5, 1.0), (3, 2, 1), 4.25), 'x="y"')
    (found,) = text_string_to_metric_families(page.text().decode())
    assert found.type == "histogram"
    assert [(sample.name, sample.labels.get("le"), sample.value) for sample in found.samples] == [
        ("h_bucket", "0.5", 3),
        ("h_bucket", "1.0", 5),
        ("h_bucket", "+Inf", 6),
        ("h_sum", None, 4.25),
        ("h_count", None, 6),
    ]


def test_nothing_is_an_empty_document() -> None:
    assert Exposition().text() == b""
