"""The graded proofs of the AIMO Proof Pilot: the folder `proof_pilot_kaggle` of its repository.

Its README describes the files: https://github.com/fieldsmodelorg/AIMO-Proof-Pilot. A proof has 0,
1, 6 or 7 marks, on which two to four experts agreed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from proofloop.config.row_files import read_rows
from proofloop.errors import ConfigError

GRADES = "grades/grades_additional_data.csv"
PROBLEMS = "problems_and_markschemes/problems.csv"
FULL_MARKS = 7


def pilot_rows(folder: Path) -> Iterator[dict[str, Any] | ConfigError]:
    """A row for each graded proof, or a ConfigError in its place if the proof is missing. Raises
    ConfigError for another folder.
    """
    if not (folder / GRADES).is_file():
        raise ConfigError(
            f"{folder} is a folder without {GRADES}",
            "name a file of graded proofs, or the AIMO Proof Pilot's folder proof_pilot_kaggle",
        )
    statements = {
        row["problem_number"]: row["problem_text"] for row in read_rows(folder / PROBLEMS)
    }
    for row in read_rows(folder / GRADES):
        yield _row(folder, row, statements)


def _row(
    folder: Path, row: Mapping[str, str], statements: Mapping[str, str]
) -> dict[str, Any] | ConfigError:
    """Proofs are named by problem, such as `2_ALTORO`, and team."""
    file = folder / "evals" / row["problem"] / f"{row['team']}.txt"
    try:
        proof = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return ConfigError(f"{file} cannot be read: {error}", "download the folder again")
    return {
        "problem": statements.get(row["problem"].partition("_")[0]),
        "proof": proof,
        "grade": row["final_score"],
        "max": FULL_MARKS,
        "problem_id": row["problem"],
        "source": row["name"],
        "id": f"{row['problem']}/{row['team']}",
    }
