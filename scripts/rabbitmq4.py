"""Runs a command, usually pytest, against RabbitMQ 4 on a Debian machine with an older RabbitMQ.

    .venv/bin/python scripts/rabbitmq4.py .venv/bin/pytest tests/contract/test_bus_contract.py

The first call installs a small Debian 13 with RabbitMQ 4.0 (400 MB) into --root by debootstrap,
from this machine's apt mirror. Each call starts that RabbitMQ on loopback, sets
PROOFLOOP_TEST_BROKER for the command, and stops the broker afterwards. Needs root. With Docker,
`docker run` of a rabbitmq image is simpler.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.integration.processes import folder
from tests.integration.rabbitmq import CONFIGURATION, RABBITMQ, ask, running_node
from tests.integration.servers import install

RELEASE = "trixie"
"""Debian 13, the first with RabbitMQ 4."""

DEFAULT_ROOT = Path("/var/tmp/proofloop-rabbitmq4")

TEMPORARY = tempfile.gettempdir()

ENTER = f"""
set -e
mkdir -p "$0{TEMPORARY}"
mount --bind "{TEMPORARY}" "$0{TEMPORARY}"
mount -t proc proc "$0/proc"
exec chroot "$0" "$@"
"""
"""Enters the other system. It runs in a new mount namespace, so that both mounts end with the
process.
"""

STRICT = """
deprecated_features.permit.global_qos = false
deprecated_features.permit.transient_nonexcl_queues = false
"""
"""Turns off features that clients use and RabbitMQ 4 still permits, but later versions will not."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--root", type=Path, default=DEFAULT_ROOT, help=f"the folder of Debian 13 ({DEFAULT_ROOT})"
    )
    parser.add_argument("--strict", action="store_true", help="turn deprecated features off")
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, help="the command to run; without one, none is run"
    )
    asked = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit(
            "error: installing and entering another system needs root\nhint: run it with sudo or in"
            " a container"
        )
    if not (asked.root / RABBITMQ.relative_to("/")).exists():
        make_system(asked.root)
    inside = ("unshare", "--mount", "sh", "-c", ENTER, str(asked.root))
    configuration = CONFIGURATION + (STRICT if asked.strict else "")
    with (
        folder("proofloop-rabbitmq4-") as place,
        running_node(place, configuration, inside=inside) as node,
    ):
        print(f"RabbitMQ {ask(node, 'overview')['rabbitmq_version']}", file=sys.stderr)
        environment = os.environ | {"PROOFLOOP_TEST_BROKER": node.url}
        return subprocess.run(asked.command or ["true"], env=environment).returncode


def make_system(root: Path) -> None:
    """Install Debian 13 with RabbitMQ into `root`; the folder appears only when it is complete."""
    if not shutil.which("debootstrap") and not install("debootstrap"):
        sys.exit(
            "error: debootstrap is not installed\nhint: start a broker yourself and set"
            " PROOFLOOP_TEST_BROKER"
        )
    part = root.with_name(f"{root.name}.part")
    # an interrupted installation may still have /proc mounted
    subprocess.run(["rm", "-rf", "--one-file-system", part])
    command = [
        "debootstrap",
        "--variant=minbase",
        "--include=rabbitmq-server",
        RELEASE,
        str(part),
        find_mirror(),
    ]
    print(f"installing Debian 13 with RabbitMQ in {root}; this takes some minutes", file=sys.stderr)
    if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
        sys.exit(f"error: debootstrap failed; see {part}/debootstrap/debootstrap.log")
    part.rename(root)


def find_mirror() -> str:
    """The Debian mirror that apt uses here."""
    command = [
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Identifier: Packages",
        "Origin: Debian",
    ]
    found = subprocess.run(command, capture_output=True, text=True).stdout.split()
    mirror = next((uri for uri in found if "security" not in uri), None)
    return mirror or sys.exit(
        "error: apt has no Debian mirror\nhint: run apt-get update, or use a rabbitmq image"
    )


if __name__ == "__main__":
    sys.exit(main())
