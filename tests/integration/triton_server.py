"""A real Triton server for tests, CPU only: the one PROOFLOOP_TEST_TRITON names (gRPC host:port),
else our own.

Our own comes from the wheel of nvidia-pytriton, in an environment of its own inside this one; its
models run on that, and see this one's packages behind its own. Models are loaded by request only.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tests.integration import processes
from tests.integration.processes import free_ports, wait_for_server

WHEEL = "nvidia-pytriton==0.7.0"
"""The newest that carries tritonserver, its Python backend and a stub for each CPython."""

NUMPY = "numpy==1.26.4"
"""The stub is built for numpy 1: with numpy 2 every tensor that a model sends arrives empty."""

START = Path(__file__).parents[2] / "serving" / "start.sh"

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Triton:
    """A running Triton; what stands below `endpoint` is empty for one that is not ours.

    `repository` holds the models; `environment` is what the server and its models see, from the
    next `start` on; `start` waits until the server answers, on the same ports.
    """

    endpoint: str
    metrics: str = ""
    repository: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    kill: Callable[[], None] | None = None
    start: Callable[[], None] | None = None
    stop: Callable[[], None] | None = None
    """Ends it as Kubernetes does, by SIGTERM: what runs is finished."""


@contextmanager
def found_triton() -> Iterator[Triton]:
    """A Triton server without models."""
    if endpoint := os.environ.get("PROOFLOOP_TEST_TRITON"):
        yield Triton(endpoint)
        return
    with own_triton() as own:
        yield own


@contextmanager
def own_triton(*options: str, ca: Path | None = None) -> Iterator[Triton]:
    """A server of our own with more command line options, which encrypts if there is a `ca`; skips
    the test where there is none to be had.
    """
    installed = _installed()
    with processes.folder("proofloop-triton-") as folder:
        yield from _run(installed, folder, options, ca)


def _installed() -> Path:
    """The environment with tritonserver and the stub's numpy, made by the first process that
    asks.
    """
    target = Path(sys.prefix, WHEEL.replace("==", "-"))
    with open(Path(tempfile.gettempdir(), "proofloop-triton.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _install(target)
    return target


def _install(target: Path) -> None:
    """Make an environment on top of this one, and put this Python's stub where the backend looks
    for it.
    """
    half = target.with_suffix(".half")
    venv.create(half, clear=True, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(half / "bin" / "python")]
    done = subprocess.run(
        [*pip, "install", "--quiet", "--no-deps", WHEEL, NUMPY], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(
            "no real Triton: set PROOFLOOP_TEST_TRITON, or see why pip failed:"
            f" {done.stderr[-500:]}"
        )
    server = _server(half)
    stub = server / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
    if not stub.exists():
        pytest.skip(
            f"no real Triton: {WHEEL} has no stub for Python {PYTHON}; set PROOFLOOP_TEST_TRITON"
        )
    shutil.copy2(stub, server / "backends" / "python")
    (server / "bin" / "tritonserver").chmod(0o755)
    ours = sysconfig.get_path("purelib")
    (_packages(half) / "tests.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    half.rename(target)


def _packages(environment: Path) -> Path:
    return environment / "lib" / f"python{PYTHON}" / "site-packages"


def _server(environment: Path) -> Path:
    return _packages(environment) / "pytriton" / "tritonserver"


def _run(
    installed: Path, folder: Path, options: tuple[str, ...], ca: Path | None
) -> Iterator[Triton]:
    grpc, metrics = free_ports(2)
    program = _server(installed)
    repository, log, shared_memory = folder / "models", folder / "server.log", f"proofloop-{grpc}-"
    repository.mkdir()
    command = [
        str(program / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={program / 'backends'}",
        f"--backend-config=python,shm-region-prefix-name={shared_memory}",
        "--model-control-mode=explicit",
        "--allow-http=false",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={grpc}",
        "--metrics-address=127.0.0.1",
        f"--metrics-port={metrics}",
        *options,
    ]
    environment = _environment(installed)
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        with open(log, "ab") as file:
            process = subprocess.Popen(
                command,
                env=environment,
                stdout=file,
                stderr=file,
                cwd=folder,
                start_new_session=True,
            )
        running.append(process)
        wait_for_server("Triton", lambda: is_ready(f"127.0.0.1:{grpc}", ca), process, log)

    def kill() -> None:
        _end_with_stubs(running.pop(), signal.SIGKILL, shared_memory)

    def stop() -> None:
        _end_with_stubs(running.pop(), signal.SIGTERM, shared_memory)

    start()
    try:
        where = (f"127.0.0.1:{grpc}", f"http://127.0.0.1:{metrics}/metrics")
        yield Triton(*where, repository, environment, kill, start, stop)
        for process in running:
            assert process.poll() is None, (
                f"Triton ended by itself: {log.read_text(errors='replace')[-3000:]}"
            )
    finally:
        for process in running:
            _end_with_stubs(process, signal.SIGTERM, shared_memory)


def _environment(installed: Path) -> dict[str, str]:
    return {
        **os.environ,
        # the models' Python is found by the first python3 on PATH, its library by the linker
        "PATH": f"{installed / 'bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": ":".join(
            [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH", "")]
        ),
        "OMP_NUM_THREADS": "1",
    }


@contextmanager
def as_first_process(repository: Path, log: Path, *options: str) -> Iterator[int]:
    """The server as its image starts it, the first process of a container; its id as seen from
    outside.
    """
    installed, (grpc, metrics) = _installed(), free_ports(2)
    environment = {
        **_environment(installed),
        "TRITONSERVER": str(_server(installed)),
        "PROOFLOOP_MODELS": str(repository),
        "PROOFLOOP_LONGEST_CALL_S": "123",
    }
    shared_memory = f"proofloop-{grpc}-"
    ports = (f"--grpc-port={grpc}", f"--metrics-port={metrics}")
    start = [
        "sh",
        str(START),
        *ports,
        f"--backend-config=python,shm-region-prefix-name={shared_memory}",
        *options,
    ]
    try:
        with processes.in_container(start, environment, log) as process:
            yield process
    finally:
        _forget(shared_memory)


def _end_with_stubs(process: subprocess.Popen[bytes], number: int, shared_memory: str) -> None:
    """End a server, the stubs of its models that outlive a crash, and what they leave in shared
    memory.
    """
    processes.end(process, number)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    _forget(shared_memory)


def _forget(shared_memory: str) -> None:
    for left in Path("/dev/shm").glob(f"{shared_memory}*"):
        left.unlink()


def is_ready(endpoint: str, ca: Path | None = None) -> bool:
    """Does a server answer there?"""
    client = InferenceServerClient(
        endpoint, ssl=ca is not None, root_certificates=str(ca) if ca else None
    )
    try:
        return bool(client.is_server_ready(client_timeout=2.0))
    except InferenceServerException:
        return False
    finally:
        client.close()
