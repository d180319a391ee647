"""Makes .venv with the pinned requirements and the seven packages, editable. `make setup` runs it;
if .venv is up to date, it does nothing.

Standard library only. Old Pythons must be able to parse this file, to print the error about their
version.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "proofloop-setup.txt"
LOCK = ROOT / "requirements" / "test.txt"
PACKAGES = [
    "shared",
    "serving",
    *(
        f"services/{role}"
        for role in ("generator", "verifier", "meta_verifier", "labeler", "trainer")
    ),
]

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
ANSWER_S = 3
"""The timeout of the index of CPU builds."""

HOW_TO_AVOID_CUDA = (
    "warning: this installs PyPI's CUDA build of about 3 GB. To avoid that, stop now (Ctrl-C) and"
    " set PIP_FIND_LINKS to a\n"
    "folder with torch's CPU wheel, or PIP_EXTRA_INDEX_URL to an index that has it"
)

CPU, CUDA = "CPU", "CUDA"
DOWNLOAD_MB = {CPU: 190, CUDA: 3000}
OTHER_DOWNLOAD_MB = 345
DISK_GB = {CPU: 2.6, CUDA: 9.6}
"""The size of .venv, with pip's temporary copies."""


class SetupError(Exception):
    """The set-up failed; the text has the problem and a hint."""


def main() -> int:
    try:
        check_python()
        set_up()
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; run `make setup` again to continue", file=sys.stderr)
        return 130
    return 0


def set_up() -> None:
    """Run all steps. The stamp comes last: an interrupted set-up runs again."""
    digest = digest_of_inputs()
    if STAMP.is_file() and STAMP.read_text() == digest:
        return
    STAMP.unlink(missing_ok=True)
    began = time.monotonic()
    say(f"setting up {VENV.relative_to(ROOT)} with Python {platform.python_version()}")
    make_venv()
    version = pinned("torch")
    build, options, why = choose_torch(version)
    say(f"torch {version}, {build} build: {why}")
    say(
        f"downloads about {DOWNLOAD_MB[build] + OTHER_DOWNLOAD_MB} MB in all, less what pip has"
        " cached"
    )
    check_disk(DISK_GB[build])
    step(f"torch (about {DOWNLOAD_MB[build]} MB)", *options)
    step(f"all other packages (about {OTHER_DOWNLOAD_MB} MB)", "--requirement", str(LOCK))
    step("proofloop, its serving and its five services", *own_packages())
    STAMP.write_text(digest)
    say(f"set up in {time.monotonic() - began:.0f} s; now: make demo")


def check_python() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 - older versions must get this error
        raise SetupError(
            f"this is Python {platform.python_version()}, proofloop needs 3.11 or newer\n"
            "hint: make setup PYTHON=python3.11"
        )
    if find_spec("venv") is None or find_spec("ensurepip") is None:
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        raise SetupError(
            "this Python cannot create virtual environments\n"
            f"hint: apt-get install {package}, or use another Python: make setup PYTHON=..."
        )


def check_disk(needed_gb: float) -> None:
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    if free_gb < needed_gb:
        raise SetupError(
            f"{free_gb:.1f} GB are free on the disk of {ROOT}, the set-up needs {needed_gb:.1f}"
            " GB\n"
            "hint: free some space, or clone to another disk"
        )


def make_venv() -> None:
    """Create .venv, unless a working one of this Python exists."""
    if PYTHON.exists():
        ask = [PYTHON, "-c", "import pip, sys; print(*sys.version_info[:3])"]
        found = subprocess.run(ask, capture_output=True, text=True)
        if found.stdout.split() == [str(part) for part in sys.version_info[:3]]:
            return
        say("the old .venv has another Python version: creating it again")
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", VENV], capture_output=True, text=True
    )
    if made.returncode:
        raise SetupError(f"creating {VENV} failed: {(made.stderr or made.stdout).strip()}")


def choose_torch(version: str) -> tuple[str, list[str], str]:
    """The build of torch (CPU or CUDA), pip's options to install it, and the reason."""
    as_pip_is = [f"torch=={version}", "--constraint", str(LOCK)]
    from_cpu_index = [f"torch=={version}+cpu", "--no-deps", "--index-url", CPU_INDEX]
    if platform.system() != "Linux":
        return CPU, as_pip_is, "the only build for this system"
    if cpu_build_is_offered(version):
        return CPU, as_pip_is, "pip's configuration offers it"
    if has_nvidia_gpu():
        return CUDA, as_pip_is, "this machine has an NVIDIA GPU"
    if answers(f"{CPU_INDEX}/torch/"):
        return CPU, from_cpu_index, f"no NVIDIA GPU; from {CPU_INDEX}"
    return (
        CUDA,
        as_pip_is,
        f"no NVIDIA GPU, but {CPU_INDEX} does not answer\n{HOW_TO_AVOID_CUDA}",
    )


def cpu_build_is_offered(version: str) -> bool:
    """Whether pip's configuration offers the CPU build. pip then prefers it: 2.13.0+cpu sorts above
    2.13.0.
    """
    command = [PYTHON, "-m", "pip", "index", "versions", "torch"]
    found = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return re.search(rf"(?<![\w.]){re.escape(version)}\+cpu\b", found.stdout) is not None


def has_nvidia_gpu() -> bool:
    return (
        Path("/proc/driver/nvidia/version").exists()
        or Path("/dev/nvidia0").exists()
        or Path("/dev/dxg").exists()
    )


def answers(address: str) -> bool:
    """Whether the address answers in time, including the DNS lookup."""
    answered = threading.Event()

    def ask() -> None:
        try:
            with urllib.request.urlopen(
                urllib.request.Request(address, method="HEAD"), timeout=ANSWER_S
            ):
                answered.set()
        except OSError:
            pass

    threading.Thread(target=ask, daemon=True).start()
    return answered.wait(ANSWER_S)


def step(what: str, *options: str) -> None:
    """Run `pip install` and print its duration."""
    say(f"  installing {what} ...")
    began = time.monotonic()
    quiet = [] if sys.stderr.isatty() else ["-qq"]  # errors only
    command = [
        PYTHON,
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        *quiet,
        *options,
    ]
    if subprocess.run(command, cwd=ROOT, stdout=sys.stderr).returncode:
        raise SetupError(
            f"pip could not install {what}; see above\nhint: fix the problem, then run `make setup`"
            " again: installed packages are kept"
        )
    say(f"  installed {what} in {time.monotonic() - began:.0f} s")


def own_packages() -> list[str]:
    editable = [word for package in PACKAGES for word in ("--editable", f"./{package}")]
    return ["--no-deps", "--no-build-isolation", *editable]


def pinned(name: str) -> str:
    """The pinned version of a package."""
    found = re.search(rf"^{name}==([\w.]+)", LOCK.read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise SetupError(f"{LOCK} does not pin {name}\nhint: make lock")
    return found[1]


def digest_of_inputs() -> str:
    """The digest of all inputs: this file, the lock, the packages' metadata, the folder and the
    Python.
    """
    files = [Path(__file__), LOCK, *(ROOT / package / "pyproject.toml" for package in PACKAGES)]
    parts = [str(ROOT).encode(), sys.version.encode(), *(file.read_bytes() for file in files)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
