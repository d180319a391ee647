"""A run's problems: what people's files look like, and what is wrong with them, by row."""

# ruff: noqa: E501  (one line a case)

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path

import pytest

from proofloop.config.problem_file import (
    MAX_QUESTION_CHARS,
    ProblemFile,
    count_problems,
    problems_of,
    read_problems,
)
from proofloop.errors import ConfigError
from proofloop.method.domains.base import SPLIT_BUCKETS
from proofloop.schema.ids import check_id
from proofloop.schema.records import Problem, digest
from tests.builders import runspec


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "problems.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


ROWS = [
    {"question": " Prove it. ", "problem_idx": "Q1", "answer": 42, "source": "a book"},
    {"problem": "Find $x$.", "id": 7, "contest": "a contest"},
    {"question": "Why?", "problem_idx": None, "id": "third one!"},
    {"question": "No id."},
]
PROBLEMS = [
    Problem(id="Q1", question="Prove it.", answer="42", source="a book"),
    Problem(id="7", question="Find $x$.", source="a contest"),
    Problem(id=f"third-one-{digest('third one!')}", question="Why?"),
    Problem(id=f"p{digest('No id.')}", question="No id."),
]


def jsonl(rows: list[dict[str, object]]) -> str:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


def test_a_json_list_is_read(tmp_path: Path) -> None:
    assert read_problems(write(tmp_path, f"\n {json.dumps(ROWS, indent=2)}")) == PROBLEMS


def test_names_are_read_in_any_case_unless_two_differ_only_in_case(tmp_path: Path) -> None:
    rows = [{name.title(): value for name, value in row.items()} for row in ROWS]
    assert read_problems(write(tmp_path, jsonl(rows))) == PROBLEMS
    both = [{"Question": "No.", "question": "Yes?", "ID": "a"}]
    assert read_problems(write(tmp_path, jsonl(both))) == [Problem(id="a", question="Yes?")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n  \n"])
def test_jsonl_is_read_with_any_line_end_and_empty_lines(tmp_path: Path, end: str) -> None:
    assert read_problems(write(tmp_path, jsonl(ROWS).replace("\n", end))) == PROBLEMS


@pytest.mark.parametrize("text", [json.dumps(ROWS), jsonl(ROWS)])
def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path, text: str) -> None:
    assert read_problems(write(tmp_path, b"\xef\xbb\xbf" + text.encode())) == PROBLEMS


def test_odd_line_separators_within_a_question_do_not_end_its_row(tmp_path: Path) -> None:
    question = "One\u2028two\x85three\tfour\nfive\r\nsix"
    assert read_problems(write(tmp_path, jsonl([{"question": question}])))[0].question == question


def test_a_question_without_an_id_keeps_its_name_when_rows_are_added(tmp_path: Path) -> None:
    alone = read_problems(write(tmp_path, jsonl([{"question": "No id."}])))
    assert alone == read_problems(write(tmp_path, jsonl(ROWS)))[3:]


GOOD = '{"question": "a"}\n'
BAD = [
    ("", r"has no problems\nhint: give rows with a `question` each"),
    ("[]", "has no problems"),
    ('{"problems": [{"question": "a"}]}', r'is a JSON object, not a list\nhint: write only the list under "problems"'),
    ('{\n "data": [\n  {"question": "a"}\n ]\n}', r'is a JSON object, not a list\nhint: write only the list under "data"'),
    ('{\n "question": "a"\n}\n', r"is a JSON object, not a list\nhint: put \[ and \] around it, or write each row on"),
    ("[1", r"is not a valid JSON list: .*\nhint: write a list"),
    ("[" * 100_000, "is not a valid JSON list: "),
    (GOOD + "{oops}\n", r"^row 2 of .* is not JSON: .*\nhint: give a JSON list, or JSONL with one object on"),
    (GOOD + '{"question":' * 100_000, r"^row 2 of .* is not JSON: "),
    (GOOD + "3\n", r"^row 2 of .* is not an object\nhint: write each row"),
    ('[{"question": "a"}, null]', r"^row 2 of .* is not an object"),
    (GOOD + '{"answer": 1}\n', r"^row 2 of .* has no text under `question` or `problem`"),
    (GOOD + '{"question": "  "}\n', r"^row 2 of .* has no text"),
    (GOOD + '{"question": 5}\n', r"^row 2 of .* has no text"),
    (GOOD + '{"question": "\\ud800"}\n', r"^row 2 of .* has half of a surrogate pair"),
    ('[{"question": "Q", "category": "\\uDBFF"}]', r"^row 1 of .* has half of a surrogate pair"),
    (GOOD + '{"problem": "b"}\n' + GOOD, r"^row 3 of .* has the same question as row 1\nhint: remove one"),
    (GOOD + '{"question": " a\\n"}\n', r"^row 2 of .* has the same question as row 1\n"),
    ('{"question": "a", "id": "x-1"}\n{"question": "b", "id": "x-1"}\n', r"^row 2 of .* has the same id as row 1: 'x-1'\n"),
    (jsonl([{"question": "x" * (MAX_QUESTION_CHARS + 1)}]), r"^the question in row 1 of .* has 100001 characters"),
    (GOOD + r'{"question": "Show $\sum_n 1$."}', r"^row 2 of .*, column 21: \\sum is not a JSON escape\nhint: double the backslash: JSON"
        r" needs \"\\\\sum\" for \\sum$"),
    (GOOD + r'{"question": "$\underline{a}$"}', r"^row 2 of .*, column 16: \\underline is not a JSON escape"),
    ('[\n {"question": "' + r"A $\alpha$" + '"}]', r"^line 2 of .*, column 19: \\alpha is not a JSON escape"),
    (GOOD + r'{"question": "Let $\frac12$"}', r"^row 2 of .*, character 6 of its question: a form feed, probably \\frac with one"
        r" backslash\nhint: double the backslash: .*\\frac$"),
    (GOOD + r'{"question": "$x \to 0$"}', r"^row 2 of .*, character 4 of its question: a tab, probably \\to with"),
    (GOOD + r'{"question": "$a_\text{max}$"}', r"a tab, probably \\text with one backslash"),
    (GOOD + r'{"question": "$$a \neq b$$"}', r"a line break, probably \\neq with one backslash"),
    (GOOD + r'{"question": "\\( a \neq b \\)"}', r"a line break, probably \\neq with one backslash"),
    (GOOD + r'{"question": "$x$\n\tan angle with $\tan a = 1$"}', r"^row 2 of .*, character 21 of its question: a tab, probably \\tan"),
    (GOOD + r'{"question": "2 \times 3"}', r"a tab, probably \\times with one backslash"),
    (GOOD + r'{"question": "$a \neq b$"}', r"a line break, probably \\neq with one backslash"),
    (GOOD + r'{"question": "$\nu = 1$ and $2\nu$"}', r"^row 2 of .*, character 2 of its question: a line break, probably \\nu with"),
    (GOOD + r'{"question": "$\beta$ and $\rho$"}', r"character 2 of its question: a backspace, probably \\beta with"),
    (GOOD + r'{"question": "over $\rho$"}', r"a carriage return, probably \\rho with one backslash"),
    (GOOD + r'{"question": "a\u0000"}', r"^row 2 of .*, character 2 of its question: a control character U\+0000\nhint: remove it$"),
    (GOOD + '{"text": "a", "n": 1}\n', r"^row 2 of .* has no text .*\nhint: give each row one of them; this row has: `text`,"
        r" `n`$"),
    (
        b"[\n\xff\xfe\x00",
        r"^.*problems.json cannot be read: byte 0xff in line 2 is not UTF-8\nhint: save it as UTF-8",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), BAD, ids=range(len(BAD)))
def test_a_bad_row_is_named_with_its_number(
    tmp_path: Path, text: str | bytes, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        read_problems(write(tmp_path, text))


INDENTED = "Let $n$ be\n\tan integer,\n\top or \\(m\\), as in the equation\neq. (2)\n\to $5."


def test_new_and_indented_lines_of_a_text_are_no_latex(tmp_path: Path) -> None:
    assert read_problems(write(tmp_path, jsonl([{"question": INDENTED}])))[0].question == INDENTED


def test_tabs_and_line_breaks_are_the_only_control_characters_of_a_table(
    tmp_path: Path,
) -> None:
    file, text = tmp_path / "problems.csv", "Let $n be\n\tan $ integer, 2\times 3"
    file.write_text(f'question\n"{text}"\n')
    assert read_problems(file)[0].question == text
    file.write_text('question\n"the\frac"\n')
    with pytest.raises(
        ConfigError, match=r"character 4 of its question: a form feed\nhint: remove it$"
    ):
        read_problems(file)


def test_one_row_of_jsonl_may_hold_a_list_of_objects(tmp_path: Path) -> None:
    row = {"question": "Prove.", "parts": [{"a": 1}]}
    assert [one.question for one in read_problems(write(tmp_path, jsonl([row])))] == ["Prove."]


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".CSV", ";"), (".tsv", "\t")])
def test_a_table_with_quoted_texts_is_read(tmp_path: Path, suffix: str, delimiter: str) -> None:
    file = tmp_path / f"problems{suffix}"
    with file.open("w", newline="", encoding="utf-8-sig") as opened:
        writer = csv.writer(opened, delimiter=delimiter)
        writer.writerows(
            [
                ["id", "question"],
                ["one", 'Let $\\frac12$, "x";\n\tor\ty.'],
                ["two", "Why?"],
                ["", "No id."],
            ]
        )
    assert [(one.id, one.question) for one in read_problems(file)] == [
        ("one", 'Let $\\frac12$, "x";\n\tor\ty.'),
        ("two", "Why?"),
        (f"p{digest('No id.')}", "No id."),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("id,text\n1,a\n", r"^row 1 of .* has no text .*\nhint: .*; this row has: `id`, `text`$"),
        (
            "id,question\n1,a,b\n",
            r"^row 1 of .*, line 2: the number of fields differs from the columns id, question",
        ),
        ("id,question\n1\n", r"^row 1 of .*, line 2: the number of fields differs"),
        ('id,question\n1,"a"b\n', r"after line 1: .*\nhint: double each quotation mark"),
        ('id,question\n1,"a\n', r"after line 1: unexpected end of data"),
        ("question,id, question\na,1,b\n", r"has two columns named 'question'\nhint: give each"),
        ("id,question\n", "has no problems"),
        ("", "has no problems"),
    ],
)
def test_a_bad_table_is_named_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "problems.csv"
    file.write_text(text)
    with pytest.raises(ConfigError, match=problem):
        read_problems(file)


def test_parquet_is_read_and_what_is_none_is_named(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "problems.parquet"
    parquet.write_table(
        pyarrow.Table.from_pylist([{"problem": "Why?", "id": 7}, {"problem": "How?", "id": 8}]),
        file,
    )
    assert read_problems(file) == [
        Problem(id="7", question="Why?"),
        Problem(id="8", question="How?"),
    ]
    file.write_text("no parquet")
    unreadable = r"problems.parquet cannot be read as Parquet: .*\nhint: give a JSON list"
    with pytest.raises(ConfigError, match=unreadable):
        read_problems(file)
    for type_of_2e18 in (pyarrow.timestamp("us"), pyarrow.timestamp("ns", "Nowhere/City")):
        moments = pyarrow.array([2 * 10**18], type_of_2e18)
        parquet.write_table(pyarrow.table({"problem": ["Why?"], "at": moments}), file)
        with pytest.raises(ConfigError, match=unreadable):
            read_problems(file)
    with pytest.raises(ConfigError, match="there is no file"):
        read_problems(tmp_path / "none.parquet")


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "problems.parquet").write_bytes(b"PAR1")
    with pytest.raises(
        ConfigError,
        match=r"pyarrow, which reads Parquet, is not installed\nhint: .*'./shared\[parquet\]'",
    ):
        read_problems(tmp_path / "problems.parquet")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^there is no file .*none.json\nhint: check the path"):
        read_problems(tmp_path / "none.json")


@pytest.mark.parametrize(
    "ids",
    [
        ("几何1", "代数1"),
        ("几何", "代数"),
        ("x/1", "x-1"),
        ("x" * 60 + "a", "x" * 60 + "b"),
        ("", " "),
    ],
)
def test_ids_that_differ_stay_different_whatever_a_key_can_hold(
    tmp_path: Path, ids: tuple[str, str]
) -> None:
    found = read_problems(
        write(tmp_path, jsonl([{"question": f"Prove {one!r}.", "id": one} for one in ids]))
    )
    assert len({problem.id for problem in found}) == 2
    assert all(check_id(f"{problem.id}-000", "id") for problem in found)


def test_ten_thousand_problems_are_read(tmp_path: Path) -> None:
    found = read_problems(
        write(tmp_path, jsonl([{"question": f"Prove {n}.", "id": n} for n in range(10_000)]))
    )
    assert (len(found), found[-1]) == (10_000, Problem(id="9999", question="Prove 9999."))


def test_a_runs_problems_are_those_of_its_file_beside_the_run_file(tmp_path: Path) -> None:
    write(tmp_path, jsonl(ROWS))
    spec = runspec(problems={"file": "problems.json"}, base=tmp_path)
    assert list(problems_of(spec)) == PROBLEMS
    assert count_problems(spec) == 4


def test_a_domains_problems_are_the_same_each_time_and_differ_by_seed() -> None:
    problems = {"domain": "nano", "count": 20}
    first = list(problems_of(runspec(problems=problems)))
    assert first == list(problems_of(runspec(problems=problems)))
    assert not {one.id for one in first} & {
        one.id for one in problems_of(runspec(problems=problems, seed=1))
    }


def test_a_domains_problems_are_all_different_even_when_it_draws_one_twice() -> None:
    spec = runspec(problems={"domain": "nano", "count": 3000})
    found = [problem.id for problem in problems_of(spec)]
    assert len(found) == len(set(found)) == count_problems(spec) == 3000


def test_a_split_of_a_file_is_so_many_of_its_rows_in_an_order_drawn_by_the_seed(
    tmp_path: Path,
) -> None:
    write(tmp_path, jsonl([{"question": f"Prove {n}."} for n in range(400)]))
    wanted = {"file": "problems.json", "count": 100}
    first = runspec(problems={**wanted, "split": "train"}, base=tmp_path)
    found = [one.question for one in problems_of(first)]
    again = runspec(problems={**wanted, "split": "train"}, base=tmp_path, seed=1)
    assert len(set(found)) == 100 == count_problems(again)
    assert [one.question for one in problems_of(again)] != found
    file = ProblemFile(tmp_path / "problems.json")
    splits = [
        {file.pose(n, split=split, seed=0).question for n in range(400)} for split in SPLIT_BUCKETS
    ]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 400
    assert [round(len(one) / 400, 1) for one in splits] == [0.8, 0.1, 0.1]
    assert set(found) <= splits[0]


def test_a_file_with_too_few_rows_for_a_split_is_refused(tmp_path: Path) -> None:
    write(tmp_path, jsonl([{"question": "Prove it."}]))
    for split in ("validation", "test"):  # this question's digest says train
        with pytest.raises(
            ConfigError,
            match=rf"no problem in the {split} split\nhint: add rows",
        ):
            list(
                problems_of(
                    runspec(
                        problems={"file": "problems.json", "split": split, "count": 1},
                        base=tmp_path,
                    )
                )
            )
    with pytest.raises(ConfigError, match=r"count = 2: .* domain 'file' has only 1 different"):
        list(
            problems_of(
                runspec(
                    problems={"file": "problems.json", "split": "train", "count": 2}, base=tmp_path
                )
            )
        )


def test_an_unknown_domain_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown domain 'geometry'\nhint: use one of: nano"):
        list(problems_of(runspec(problems={"domain": "geometry"})))


def test_a_long_question_is_checked_in_less_than_a_second(tmp_path: Path) -> None:
    question = "\neq " * 20_000
    began_s = time.process_time()
    assert read_problems(write(tmp_path, jsonl([{"question": question}])))
    assert time.process_time() - began_s < 1
