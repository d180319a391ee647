"""Reads the rows of a file: CSV, TSV or Parquet by its extension, else a JSON list or JSONL."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proofloop.errors import ConfigError, library

FORMS = "give a JSON list, JSONL, CSV or TSV in UTF-8, or Parquet"
TABLES, PARQUET = (".csv", ".tsv"), (".parquet", ".pq")
QUESTION = frozenset({"question", "problem"})
"""The keys for a row's question."""

ROW = QUESTION | {"messages"}
"""Keys by which a single object is a row, not a wrapper of rows."""

LONGEST_FIELD = 16 * 1024 * 1024
"""The most characters of a CSV field."""

DOUBLE_IT = r'double the backslash: JSON needs "\\{0}" for \{0}'
"""The hint for a LaTeX command with one backslash."""

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""A JSON escape of half of a surrogate pair. UTF-8 itself has none."""


def read_rows(file: Path) -> list[Any]:
    """Read the rows; those of a table as a dict by column. Raises ConfigError."""
    rows = []
    for row in each_row(file):
        if isinstance(row, ConfigError):
            raise row
        rows.append(row)
    return rows


def each_row(file: Path) -> Iterator[Any]:
    """Yield each row, or the ConfigError of a row that cannot be read. Raises ConfigError if the
    file cannot be read.
    """
    if file.suffix.lower() in PARQUET:
        yield from _read_parquet(file)
    elif file.suffix.lower() in TABLES:
        yield from _read_table(_text_of(file), file)
    else:
        yield from _read_json(_text_of(file), file)


def lower_names(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its names in lower case: `Question` is `question`. Names that differ only in
    case stay as they are.
    """
    counts = Counter(name.lower() for name in row)
    return {
        name.lower() if counts[name.lower()] == 1 else name: value for name, value in row.items()
    }


def _text_of(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise _missing(file) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise ConfigError(
            f"{file} cannot be read: byte {byte:#04x} in line {line} is not UTF-8",
            f"save it as UTF-8, which Excel calls CSV UTF-8; {FORMS}",
        ) from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}", FORMS) from error


def _missing(file: Path) -> ConfigError:
    hint = "check the path; in a TOML file it is relative to the file's folder"
    return ConfigError(f"there is no file {file}", hint)


def holds_json(file: Path) -> bool:
    """Whether the file is read as JSON, where a backslash begins an escape."""
    return file.suffix.lower() not in (*TABLES, *PARQUET)


def _read_json(text: str, file: Path) -> Iterator[Any]:
    """The rows. One with half of a surrogate pair is an error: no text with it can be stored."""
    has_escapes = SURROGATE.search(text)
    for number, row in enumerate(_json_rows(text, file), 1):
        if has_escapes and not isinstance(row, ConfigError) and not _is_unicode(row):
            yield ConfigError(
                f"row {number} of {file} has half of a surrogate pair",
                "write the character itself, or both halves",
            )
        else:
            yield row


def _is_unicode(row: object) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _json_rows(text: str, file: Path) -> Iterator[Any]:
    """The rows of a JSON list, or of JSON lines."""
    if text.lstrip().startswith("["):
        yield from _json_list(text, file)
        return
    # not splitlines(): a JSON string may have other line separators
    lines = [line for line in text.split("\n") if line.strip()]
    if text.lstrip().startswith("{"):
        _check_is_row(text, lines, file)
    for number, line in enumerate(lines, 1):
        yield _json_row(line, number, file)


def _json_list(text: str, file: Path) -> list[Any]:
    try:
        return list(json.loads(text))
    except (ValueError, RecursionError) as error:
        if problem := _undoubled(error, f"line {getattr(error, 'lineno', 0)} of {file}"):
            raise problem from error
        raise ConfigError(
            f"{file} is not a valid JSON list: {error}",
            "write a list of objects, each with a `question`",
        ) from error


def _check_is_row(text: str, lines: list[str], file: Path) -> None:
    """Raises ConfigError for a JSON object that holds the list of rows, or one row on several
    lines.
    """
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return
    if len(lines) == 1 and not ROW.isdisjoint(lower_names(whole)):
        return
    lists = [name for name, value in whole.items() if _is_list_of_rows(value)]
    problem = f"{file} is a JSON object, not a list"
    if len(lists) == 1:
        raise ConfigError(problem, f"write only the list under {json.dumps(lists[0])} to the file")
    if len(lines) > 1:
        raise ConfigError(problem, "put [ and ] around it, or write each row on one line")


def _is_list_of_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _json_row(line: str, number: int, file: Path) -> Any:
    """The row, or the ConfigError that says why the line is not JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return _undoubled(error, f"row {number} of {file}") or ConfigError(
            f"row {number} of {file} is not JSON: {error}",
            "give a JSON list, or JSONL with one object on each line",
        )


def _undoubled(error: Exception, place: str) -> ConfigError | None:
    r"""The error for a LaTeX command like `\sum`, whose backslash begins an invalid JSON escape;
    else None.
    """
    if not isinstance(error, json.JSONDecodeError) or "escape" not in error.msg:
        return None
    start = error.doc.rfind("\\", 0, error.pos + 1)
    found = re.compile(r"\\([A-Za-z]+|.)").match(error.doc, start)
    if start < 0 or found is None:
        return None
    column = start - error.doc.rfind("\n", 0, start)
    return ConfigError(
        f"{place}, column {column}: {found[0]} is not a JSON escape", DOUBLE_IT.format(found[1])
    )


def _read_table(text: str, file: Path) -> Iterator[dict[str, str] | ConfigError]:
    header = text.partition("\n")[0]
    delimiter = "\t" if file.suffix.lower() == ".tsv" else max(",;\t", key=header.count)
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ConfigError(
                f"{file} has two columns named {twice[0]!r}", "give each column a different name"
            )
        for number, row in enumerate(reader, 1):
            if None in row or None in row.values():
                place = f"row {number} of {file}, line {reader.line_num}"
                yield ConfigError(
                    f"{place}: the number of fields differs from the columns {', '.join(names)}",
                    'quote fields that have a comma, a quotation mark or a line break: "a, b"',
                )
                continue
            yield {name.strip(): value for name, value in row.items()}
    except csv.Error as error:
        hint = 'double each quotation mark inside a quoted field: "a ""b"""'
        raise ConfigError(f"{file}, after line {reader.line_num}: {error}", hint) from error


def _read_parquet(file: Path) -> list[Any]:
    with library(
        f"{file}: the package pyarrow, which reads Parquet, is not installed", "[parquet]"
    ):
        from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]
    try:
        rows: list[Any] = parquet.read_table(file).to_pylist()
        return rows
    except FileNotFoundError as error:
        raise _missing(file) from error
    except (ArrowException, OSError, ValueError, OverflowError, LookupError) as error:
        # not Parquet, not UTF-8, a date that Python lacks, an unknown time zone
        raise ConfigError(f"{file} cannot be read as Parquet: {error}", FORMS) from error
