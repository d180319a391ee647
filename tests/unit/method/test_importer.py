"""Importing prompt templates from a Python file: read as data, whole or not at all."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from proofloop.errors import ConfigError
from proofloop.method.prompts import load_pack
from proofloop.method.prompts.importer import MAX_FILE_BYTES, import_pack
from proofloop.method.prompts.phrases import Phrases
from tests.builders import answer

GENERATION = r"""
Your task is to solve a problem, in this form:

## Solution // start with this heading
... // the solution

## Self Evaluation

Here is my evaluation of the solution: // this phrase
... // the evaluation

Based on my evaluation, the final overal score should be:
\\boxed{{...}} // 0, 0.5 or 1

## Problem
{question}
"""
VERIFICATION = r"""
## Instruction

Grade it. Your response has the following format:

My review:
... // each step

My grade: \\boxed{{...}}

{statement}

## Solution

{proof}
"""
META = r"""
Rate the rating:

(your reasons)

**Final rating**
$\\boxed{{}}$

Of {statement}, solved by {proof}:

{rating}
"""
REFINEMENT = """
{instruction}

## Candidates

{proofs_to_refine}
"""


def official(**changes: str) -> str:
    """A file in the official form: one dictionary of four triple-quoted strings."""
    templates = {
        "proof_generation": f'"""{GENERATION}""".strip()',
        "proof_verification": f'"""{VERIFICATION}""".strip()',
        "meta_verification": f'"""{META}""".strip()',
        "proof_refinement": f'"""{REFINEMENT}""".strip()',
    }
    entries = "\n".join(
        f'    "{name}": {text},' for name, text in {**templates, **changes}.items() if text
    )
    return f"math_templates = {{\n{entries}\n}}\n"


def write(folder: Path, source: str | bytes) -> Path:
    file = folder / "math_templates.py"
    file.write_bytes(source if isinstance(source, bytes) else source.encode())
    return file


def test_the_four_templates_become_a_pack_with_our_placeholders(tmp_path: Path) -> None:
    made = import_pack(write(tmp_path, official()), tmp_path / "pack")
    assert made.templates == {
        "proof_generation": GENERATION.strip().replace("\\\\boxed{{...}}", "\\boxed{...}"),
        "proof_verification": (
            "## Instruction\n\nGrade it. Your response has the following format:\n\nMy review:\n..."
            " // each step\n\n"
            "My grade: \\boxed{...}\n\n{question}\n\n## Solution\n\n{proof}"
        ),
        "meta_verification": (
            "Rate the rating:\n\n(your reasons)\n\n**Final rating**\n$\\boxed{}$\n\n"
            "Of {question}, solved by {proof}:\n\n{analysis}"
        ),
        "proof_refinement": "{instruction}\n\n## Candidates\n\n{attempts}",
    }
    loaded = load_pack("pack", tmp_path)
    assert (loaded.templates, loaded.fenced, loaded.phrases) == (
        made.templates,
        False,
        made.phrases,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["math_templates.py", "pack"]


@pytest.mark.parametrize("filler", [" ", "$", " //"])
def test_a_long_line_is_searched_for_a_score_once(tmp_path: Path, filler: str) -> None:
    long = f"x{filler * 10_000}y"
    source = official(meta_verification=f'"""{META}\n{long}"""')
    began_s = time.process_time()
    pack = import_pack(write(tmp_path, source), tmp_path / "pack")
    assert pack.phrases.meta_score == "**Final rating**"
    assert time.process_time() - began_s < 2


def test_the_phrases_are_those_of_the_sample_answers(tmp_path: Path) -> None:
    pack = import_pack(write(tmp_path, official()), tmp_path / "pack")
    assert pack.phrases == Phrases(
        solution_heading="## Solution",
        self_heading="## Self Evaluation",
        self_intro="Here is my evaluation of the solution:",
        self_score="Based on my evaluation, the final overal score should be:",
        evaluation_intro="My review:",
        evaluation_score="My grade:",
        meta_intro="",
        meta_score="**Final rating**",
    )
    for reading in ("strict", "lenient"):
        reader = pack.reader(reading)
        assert (
            reader.evaluation("My review:\nA gap.\n\nMy grade: \\boxed{0.5}", "stop").verdict.score
            == 0.5
        )
        assert (
            reader.meta_critique("Real.\n\n**Final rating**\n$\\boxed{1}$", "stop").verdict.score
            == 1
        )
        assert reader.proof(answer(score="0"), "stop").verdict.score == 0


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            ("proof_verification", "boxed", "box"),
            r"template proof_verification shows no score in \\boxed{...}",
        ),
        (
            ("proof_verification", "My grade: ", "(as above)\n"),
            "template proof_verification shows no phrase before",
        ),
        (
            ("proof_generation", "## Self", "The self"),
            "shows no heading of the solution above '## Solution'",
        ),
        (
            ("proof_generation", "## ", ""),
            "template proof_generation shows no heading above the evaluation",
        ),
    ],
)
def test_templates_whose_answers_could_not_be_read_are_refused(
    tmp_path: Path, changes: tuple[str, str, str], problem: str
) -> None:
    name, old, new = changes
    template = {"proof_verification": VERIFICATION, "proof_generation": GENERATION}[name].replace(
        old, new
    )
    file = write(tmp_path, official(**{name: f'"""{template}"""'}))
    with pytest.raises(ConfigError, match=problem):
        import_pack(file, tmp_path / "pack")
    assert list(tmp_path.iterdir()) == [file]


def test_an_imported_template_is_filled_as_its_model_was_trained(tmp_path: Path) -> None:
    pack = import_pack(write(tmp_path, official()), tmp_path / "pack")
    expected = (
        VERIFICATION.replace("\\\\", "\\").strip().format(statement="Is 1 < 2?", proof="Yes {so}.")
    )
    assert pack.verify("Is 1 < 2?", "Yes {so}.").text == expected


def test_a_literal_is_stripped_however_often_the_file_says_so(tmp_path: Path) -> None:
    source = official(proof_refinement='" {instruction} {attempts} "' + ".strip()" * 1100)
    made = import_pack(write(tmp_path, source), tmp_path / "pack")
    assert made.templates["proof_refinement"] == "{instruction} {attempts}"


def test_nothing_in_the_file_is_executed(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    bad = f"import pathlib\npathlib.Path({str(witness)!r}).write_text('run')\nraise SystemExit\n"
    import_pack(write(tmp_path, bad + official()), tmp_path / "pack")
    assert not witness.exists()


def test_other_statements_and_odd_backslashes_do_not_disturb(tmp_path: Path) -> None:
    text = '"Solve \\o/ {instruction} {attempts}"'
    head = '# -*- coding: utf-8 -*-\n"""About."""\nCOLORS = {"a": 1, **{}}\n'
    source = f"{head}\n{official(proof_refinement=text)}\ndef f(): ...\n"
    pack = import_pack(write(tmp_path, b"\xef\xbb\xbf" + source.encode()), tmp_path / "pack")
    assert pack.templates["proof_refinement"] == "Solve \\o/ {instruction} {attempts}"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (
            official(meta_verification=""),
            r"no string literal 'meta_verification'\nhint: it needs the keys proof_generation, ",
        ),
        (
            official(meta_verification='f"{statement}{proof}{rating}"'),
            "no string literal 'meta_verification'",
        ),
        (
            official(meta_verification='"{statement}{proof}" + "{rating}"'),
            "no string literal 'meta_verification'",
        ),
        (
            official(meta_verification="open('/etc/passwd').read()"),
            "no string literal 'meta_verification'",
        ),
        (
            official(meta_verification='"{statement} {proof}".strip()'),
            r"meta_verification of prompt pack 'pack' lacks {analysis}",
        ),
        (
            official(proof_generation='"Solve it."'),
            r"proof_generation of prompt pack 'pack' lacks {question}\nhint: use exactly",
        ),
        (
            official(proof_generation='"{question} {proof}"'),
            r"has placeholders that it cannot use: {proof}",
        ),
        (
            official(proof_generation='"{question} {hint}"'),
            r"template proof_generation has unknown placeholders: {hint}",
        ),
        (
            official(proof_generation='"{question} {}"'),
            r"template proof_generation has unknown placeholders: {}",
        ),
        (
            official(proof_generation='"{question} {{proof}}"'),
            "has a literal in the form of a placeholder",
        ),
        (official(proof_generation='"{question!r}"'), "placeholder 'question' has a format"),
        (official(proof_generation='"{question:>9}"'), "placeholder 'question' has a format"),
        (
            official(proof_generation='"{question} \\\\boxed{1"'),
            r"template proof_generation cannot be read: .*\nhint: double each literal brace",
        ),
        (
            official(proof_generation='"{question} \\ud83d"'),
            r"template proof_generation has half of a surrogate pair\nhint: write the character"
            r" itself",
        ),
        (
            "templates = 3\n",
            r"has no dictionary of templates\nhint: it needs the keys proof_generation",
        ),
        ("", "has no dictionary of templates"),
        (
            "this is no Python",
            r"math_templates.py is not a Python file: .*\nhint: give the official",
        ),
        ("x = " + "(" * 50_000, "is not a Python file"),
        ("x = " + "-" * 100_000 + "1", "is not a Python file|has no dictionary"),
        ("a\0b", "is not a Python file"),
        (b"\xff\xfe\x00", r"cannot be read: .*\nhint: give a Python file in UTF-8"),
        (
            "#" * (MAX_FILE_BYTES + 1),
            f"has {MAX_FILE_BYTES + 1} bytes, the limit is {MAX_FILE_BYTES}",
        ),
    ],
    ids=range(22),
)
def test_a_file_that_is_no_pack_is_refused_and_nothing_is_written(
    tmp_path: Path, source: str | bytes, problem: str
) -> None:
    file = write(tmp_path, source)
    with pytest.raises(ConfigError, match=problem):
        import_pack(file, tmp_path / "pack")
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_file_and_a_taken_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file .*nothing.py"):
        import_pack(tmp_path / "nothing.py", tmp_path / "pack")
    (tmp_path / "pack").mkdir()
    with pytest.raises(ConfigError, match=r"pack already exists\nhint: choose another --out"):
        import_pack(write(tmp_path, official()), tmp_path / "pack")
    assert list((tmp_path / "pack").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, official())
    with pytest.raises(
        ConfigError, match=r"cannot be written: Not a directory\nhint: choose another --out"
    ):
        import_pack(file, file / "pack")
    assert list(tmp_path.iterdir()) == [file]
