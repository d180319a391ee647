"""The shape of the tree: folders that fit on a screen, imports without cycles, quick unit tests.

Which folder may import which: `lint-imports`. The length of lines: `ruff`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import grimp

import proofloop

ROOT = Path(__file__).parents[2]
CORE = Path(proofloop.__file__).parent
UNIT_TESTS = Path(__file__).parent
PACKAGES = (
    "proofloop",
    "proofloop_generator",
    "proofloop_labeler",
    "proofloop_meta_verifier",
    "proofloop_serving",
    "proofloop_trainer",
    "proofloop_verifier",
)
MODULES_IN_A_FOLDER = 14
SERVER_FIXTURES = {"broker", "installation", "s3", "smollm2", "triton"}
STARTS_NO_SERVER = {"tests.integration.certificates", "tests.integration.containers"}


def folders() -> Iterator[Path]:
    return (path for path in [CORE, *CORE.rglob("*")] if path.is_dir())


def modules_of(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.py") if path.name != "__init__.py"]


def test_no_folder_of_the_core_has_too_many_modules():
    long = {
        str(folder.relative_to(ROOT)): len(modules_of(folder))
        for folder in folders()
        if len(modules_of(folder)) > MODULES_IN_A_FOLDER
    }
    assert long == {}


def test_no_file_imports_itself_in_a_circle():
    """Imports for type checking count. Raises CycleError, which names the circle."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    TopologicalSorter(imports).prepare()


def test_unit_tests_start_no_server():
    """`make unit` needs nothing but Python."""
    for file in UNIT_TESTS.rglob("*.py"):
        helpers, fixtures = needs_of(ast.parse(file.read_text()))
        assert helpers <= STARTS_NO_SERVER, file
        assert not fixtures & SERVER_FIXTURES, file


def needs_of(tests: ast.Module) -> tuple[set[str], set[str]]:
    """The imported helpers of integration tests, and the fixtures of the file's tests."""
    helpers, fixtures = set[str](), set[str]()
    for node in ast.walk(tests):
        if isinstance(node, ast.Import):
            helpers |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            helpers.add(node.module)
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            fixtures |= {argument.arg for argument in node.args.args}
    return {name for name in helpers if name.startswith("tests.integration")}, fixtures


def test_names_of_tests_fit_on_a_line():
    """The behaviour in at most 80 characters."""
    names = re.compile(r"def (test_\w{76,})")
    tests = (ROOT / "tests").rglob("*.py")
    assert [name for file in tests for name in names.findall(file.read_text())] == []
