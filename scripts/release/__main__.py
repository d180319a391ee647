"""Commands: check VERSION, notes VERSION, stamp REGISTRY FOLDER."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scripts.release import chart, licenses, source, wheel
from scripts.release.findings import DONE, OPEN, Finding

BY_HAND = """\
By hand, in this order (docs/how-to/release.md):
  1. Once: write [project.urls] in pyproject.toml. On PyPI, add a trusted publisher for the
     workflow release.yml and the environment pypi. On GitHub, create the environments pypi and
     release with reviewers, and let Pages build from GitHub Actions.
  2. Run make test with PROOFLOOP_TEST_SKIPS=fail, make demo, and the benchmarks that the version
     may change.
  3. Run git tag -s v{version}, and push the tag. The workflow release.yml does the rest.
  4. Make the pushed packages public, then install wheel, compose file and chart from there."""


def main() -> int:
    arguments = read_arguments()
    match arguments.command:
        case "notes":
            print(source.notes(arguments.version))
            return 0
        case "stamp":
            chart.stamp(arguments.registry, arguments.folder)
            return 0
    return check(arguments.version, final=arguments.final)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.release")
    commands = parser.add_subparsers(dest="command", required=True)
    checked = commands.add_parser("check", help="rehearse the release and print what is open")
    checked.add_argument("version")
    checked.add_argument("--final", action="store_true", help="fail for open points too")
    commands.add_parser("notes", help="print the changelog's section").add_argument("version")
    stamped = commands.add_parser("stamp", help="copy chart and compose file, with a registry")
    stamped.add_argument("registry", help="such as ghcr.io/OWNER")
    stamped.add_argument("folder", type=Path)
    return parser.parse_args()


def check(version: str, *, final: bool) -> int:
    """Print the findings as they come. Returns the exit code."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for finding in findings(version, Path(folder)):
            print(f"{finding.state:6} {finding.what}: {finding.text}", flush=True)
            failed += finding.state not in ((DONE,) if final else (DONE, OPEN))
    print(f"\n{BY_HAND.format(version=version)}")
    return 1 if failed else 0


def findings(version: str, folder: Path) -> Iterator[Finding]:
    yield from source.check(version)
    yield from licenses.check()
    yield from chart.check(version, folder)
    yield from wheel.check(version, folder)


if __name__ == "__main__":
    sys.exit(main())
