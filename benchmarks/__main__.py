"""Runs the benchmarks that are named, or all of them."""

import importlib
import pkgutil
import sys

import benchmarks
from benchmarks import report, summary

_NOT_BENCHMARKS = {"__main__", "report", "summary"}


def main() -> int:
    """Run, print, write; return the exit code: 1 if a named goal was missed."""
    known = [
        module.name
        for module in pkgutil.iter_modules(benchmarks.__path__)
        if module.name not in _NOT_BENCHMARKS and not module.ispkg
    ]
    wanted = sys.argv[1:] or known
    unknown = set(wanted) - set(known)
    if unknown:
        print(f"No benchmark {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
        return 2
    missed = False
    for name in wanted:
        rows = importlib.import_module(f"benchmarks.{name}").run()
        print(f"written to {report.publish(name, rows)}")
        missed |= any(row.met is False for row in rows)
    summary.write()
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
