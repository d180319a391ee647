"""The licenses of all pinned dependencies of the images and the wheel."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from scripts.release.findings import DONE, FAILED, ROOT, Finding

LOCKS = ("light", "serving", "trainer")

REFUSED = re.compile(r"GPL|UNKNOWN|proprietary|commercial", re.IGNORECASE)
"""Copyleft that extends to other code, or no license. The Mozilla license covers only its files."""


def check() -> Iterator[Finding]:
    found = licenses()
    if missing := sorted(pinned() - found.keys()):
        yield Finding("licenses", FAILED, f"not installed here: {', '.join(missing)}; make setup")
    refused = [f"{name}: {license}" for name, license in found.items() if REFUSED.search(license)]
    if refused:
        yield Finding("licenses", FAILED, "; ".join(refused))
    else:
        yield Finding(
            "licenses", DONE, f"{len(found)} packages, {len(Counter(found.values()))} licenses"
        )


def licenses() -> dict[str, str]:
    """The license of each pinned package that is installed here."""
    command = [
        Path(sys.executable).with_name("pip-licenses"),
        "--format=json",
        "--with-system",
        "--packages",
    ]
    done = subprocess.run([*command, *sorted(pinned())], capture_output=True, text=True, check=True)
    return {canonical(one["Name"]): one["License"] for one in json.loads(done.stdout)}


def pinned() -> set[str]:
    texts = [(ROOT / "requirements" / f"{lock}.txt").read_text() for lock in LOCKS]
    return {
        canonical(name)
        for name in re.findall(r"^([\w.-]+)==(?!.*sys_platform)", "\n".join(texts), re.MULTILINE)
    }


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
