"""Make sure that the Debian packages which the tests need are installed.

As root the missing ones are installed; otherwise their names are printed with the command to run,
and the exit code is 1, so that no test is ever skipped silently.
"""

import os
import shutil
import subprocess
import sys

PACKAGES = (
    "curl",
    "fiu-utils",
    "gcc",
    "libb64-0d",
    "libc6-dev",
    "mosquitto",
    "postgresql",
    "prometheus",
    "softhsm2",
    "sqlite3",
)


def installed(package: str) -> bool:
    """Say whether dpkg has the package installed."""
    query = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package],  # noqa: S607 (found on PATH)
        capture_output=True,
        text=True,
        check=False,
    )
    return query.stdout == "installed"


def main() -> int:
    """Install or name what is missing; return the exit code."""
    if shutil.which("dpkg-query") is None:
        print(
            "The tests need Debian or Ubuntu, whose packages they install: "
            f"{', '.join(PACKAGES)}. The demo (make demo) needs none of them.",
            file=sys.stderr,
        )
        return 1
    missing = [package for package in PACKAGES if not installed(package)]
    if not missing:
        return 0
    if os.geteuid() != 0:
        print(
            f"The tests need Debian packages that are missing: {', '.join(missing)}\n"
            f"Install them: sudo apt-get install {' '.join(missing)}",
            file=sys.stderr,
        )
        return 1
    print(f"Installing the Debian packages {', '.join(missing)}", file=sys.stderr)
    # Daemons that come with a package stay off: tests start their own on free ports.
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["apt-get", "update"], ["apt-get", "install", "--yes", *missing]):
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            print(f"{' '.join(command)} failed:\n{run.stderr}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
