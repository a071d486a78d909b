"""The page of measurements says what the committed results say."""

from benchmarks import summary


def test_the_document_is_what_the_results_give() -> None:
    assert summary.DOCUMENT.read_text() == summary.text(), "run any `make bench NAME=...` anew"
