"""`proofloop runs export`: the proofs of a run as JSONL, CSV or Parquet, or the best ones as a
document.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from itertools import islice
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import typer

from proofloop.cli.common import RunArgument, StoreOption, need_run, open_store
from proofloop.cli.runs.document import as_markdown
from proofloop.cli.runs.exported import (
    ExportedCritique,
    ExportedProof,
    Filter,
    best_rows,
    proof_rows,
)
from proofloop.cli.runs.latex import as_latex
from proofloop.errors import ConfigError, library
from proofloop.runs.labels import analysis_rows
from proofloop.schema.records import Score

T = TypeVar("T")

ROWS_AT_ONCE = 1000
"""Rows of one group in a Parquet file; so many are in memory at once."""


class Format(StrEnum):
    """The formats. `md` and `tex` are documents to read, the others hold rows."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    MD = "md"
    TEX = "tex"


DOCUMENTS = {Format.MD: as_markdown, Format.TEX: as_latex}


def export(
    run: RunArgument,
    people: Annotated[
        bool, typer.Option("--people", help="Only proofs or critiques that people graded.")
    ] = False,
    scored: Annotated[
        bool,
        typer.Option(
            "--scored", help="Only proofs with a score: rows that a curriculum's [files] accepts."
        ),
    ] = False,
    critiques: Annotated[
        bool, typer.Option("--critiques", help="With the critiques of each proof.")
    ] = False,
    best: Annotated[
        bool,
        typer.Option(
            "--best", help="Only the best labeled proof of each problem: see `runs problems`."
        ),
    ] = False,
    analyses: Annotated[
        bool,
        typer.Option(
            "--analyses",
            help="Critiques instead of proofs, with the `quality` that people gave, or empty.",
        ),
    ] = False,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="Default: by the suffix of --out, else jsonl. With --best also md (Markdown) and"
            " tex (LaTeX, for xelatex or lualatex).",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file to write; - and default: standard output."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Write the proofs of a run, one row a proof.

    A row has the proof with its problem, label, self-evaluation, model and cost. Examples:

    proofloop runs export mine --critiques --out mine.parquet

    proofloop runs export mine --best --critiques --out best.tex
    """
    out = None if out == Path("-") else out
    form = form or _format_of(out)
    _check(form, out, best=best, analyses=analyses, critiques=critiques)
    data = open_store(store, must_exist=True)
    need_run(data, run)
    what = "analysis" if analyses else "readable proof with a label" if best else "proof"
    missing = f"no rows: {run} has no {what}"
    missing += " that people graded" if people else " with a score" if scored else " yet"
    if analyses:
        found = _unless_empty(analysis_rows(data, run, people=people), missing)
        _write(_lines(found, form), out)
        return
    find = best_rows if best else proof_rows
    rows = _unless_empty(find(data, run, Filter(people, scored, critiques)), missing)
    if form is Format.PARQUET and out:
        _write_parquet(rows, out, with_critiques=critiques)
    elif form in DOCUMENTS:
        _write(DOCUMENTS[form](run, rows), out)
    else:
        _write(_lines(map(_columns, rows), form), out)


def _unless_empty(rows: Iterable[T], missing: str) -> Iterator[T]:
    """The rows; on stderr `missing` if there are none."""
    row = None
    for row in rows:
        yield row
    if row is None:
        print(missing, file=sys.stderr)


def _format_of(out: Path | None) -> Format:
    if out is None:
        return Format.JSONL
    try:
        return Format(out.suffix.lower().lstrip("."))
    except ValueError as error:
        raise ConfigError(
            f"--out {out}: the suffix names no format", f"one of .{', .'.join(Format)}; or --format"
        ) from error


def _check(form: Format, out: Path | None, *, best: bool, analyses: bool, critiques: bool) -> None:
    """Raises ConfigError for options that exclude each other."""
    if analyses and (best or critiques or form is Format.PARQUET):
        raise ConfigError(
            "--analyses excludes --best, --critiques and Parquet: its rows are critiques",
            "leave one of them out",
        )
    if form in DOCUMENTS and not best:
        raise ConfigError(f"the format {form} is for the best proofs", "add --best")
    if form is Format.CSV and critiques:
        raise ConfigError(
            "a row of CSV has no place for several critiques", "use --format jsonl or parquet"
        )
    if form is Format.PARQUET and out is None:
        raise ConfigError("Parquet is not for a terminal", "name a file by --out")


def _columns(row: ExportedProof) -> dict[str, Any]:
    """The row as columns; without critiques unless they are requested."""
    columns = asdict(row)
    return {name: each for name, each in columns.items() if name != "critiques" or each is not None}


def _lines(rows: Iterable[dict[str, Any]], form: Format) -> Iterator[str]:
    if form is Format.CSV:
        yield from _csv_lines(rows)
    else:
        for row in rows:
            yield f"{json.dumps(row, ensure_ascii=False)}\n"


def _csv_lines(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    writer = csv.writer(_Lines())
    for number, row in enumerate(rows):
        if number == 0:
            yield writer.writerow(row)
        yield writer.writerow(
            " ".join(each) if isinstance(each, tuple) else each for each in row.values()
        )


class _Lines:
    """A file whose `write` returns the line: csv returns the result of `write`."""

    def write(self, line: str) -> str:
        return line


def _write(parts: Iterable[str], out: Path | None) -> None:
    if out is None:
        sys.stdout.writelines(parts)
        return
    with _replacing(out) as part, part.open("w", encoding="utf-8", newline="") as file:
        file.writelines(parts)


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A file that takes the name `out` when it is complete. Prints that name. Raises ConfigError
    if `out` cannot be written.
    """
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder", "name a file, for example one in it")
    part = out.with_name(f"{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            part.replace(out)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written: {error}", "name another file") from error
    print(out)


def _write_parquet(rows: Iterator[ExportedProof], out: Path, *, with_critiques: bool) -> None:
    """Writes ROWS_AT_ONCE rows at a time. Raises ConfigError."""
    with library("the package pyarrow, which writes Parquet, is not installed", "[parquet]"):
        import pyarrow as pa  # type: ignore[import-untyped]
        from pyarrow import parquet
    types: dict[Any, Any] = {
        Score: pa.float64(),
        int: pa.int64(),
        bool: pa.bool_(),
        str: pa.string(),
    }
    types[tuple[str, ...]] = pa.list_(pa.string())
    types[tuple[ExportedCritique, ...]] = pa.list_(pa.struct(_fields(ExportedCritique, types)))
    fields = _fields(ExportedProof, types)
    schema = pa.schema(fields if with_critiques else fields[:-1])
    with _replacing(out) as part, parquet.ParquetWriter(part, schema) as writer:
        while group := list(islice(rows, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist([_columns(row) for row in group], schema))


def _fields(kind: type, types: dict[Any, Any]) -> list[tuple[str, Any]]:
    """The columns of a row, with Arrow's type for that of each field."""
    return [(name, types[_not_none(hint)]) for name, hint in get_type_hints(kind).items()]


def _not_none(hint: Any) -> Any:
    """The type without None: `str` for `str | None`."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return next(each for each in options if each is not NoneType)
