"""Answers of child processes, good and bad."""

import os
from pathlib import Path

import pytest

from edge_agent.inference.probe import ProbeError, Prober, stamps


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules a child can run."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def test_a_good_answer_holds_until_what_it_depends_on_changes(
    programs: Path, tmp_path: Path
) -> None:
    (programs / "says.py").write_text("import time; print('noise'); print(time.time_ns())")
    library = tmp_path / "library.so"
    library.touch()
    cache = tmp_path / "probes.json"

    def ask(prober: Prober) -> str:
        return prober.ask("says", ["x"], depends_on=stamps([library]))

    first = ask(Prober(cache))
    assert first.isdigit()
    assert ask(Prober(cache)) == first
    os.utime(library, ns=(1, 1))
    assert ask(Prober(cache)) != first


def test_an_answer_that_does_not_last_is_asked_again(programs: Path) -> None:
    (programs / "says.py").write_text("import time; print(time.time_ns())")
    prober = Prober()
    answers = {prober.ask("says", [], depends_on=[], lasting=lambda _: False) for _ in range(2)}
    assert len(answers) == 2


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "died of SIGSEGV"),
        ("import sys; sys.exit('first\\nlast line')", "^last line$"),
        ("import sys; sys.exit(3)", "exit status 3"),
        ("import time; time.sleep(60)", "within 0.5 s"),
    ],
)
def test_how_a_child_may_end(programs: Path, text: str, complaint: str) -> None:
    (programs / "ends.py").write_text(text)
    with pytest.raises(ProbeError, match=complaint):
        Prober(timeout_s=0.5 if "sleep" in text else 30.0).ask("ends", [], depends_on=[])


def test_a_damaged_cache_is_forgotten(programs: Path, tmp_path: Path) -> None:
    (programs / "says.py").write_text("print('hello')")
    cache = tmp_path / "probes.json"
    cache.write_text("{")
    assert Prober(cache).ask("says", [], depends_on=[]) == "hello"
