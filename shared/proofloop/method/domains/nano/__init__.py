"""The nano domain: chains of `+ - *` modulo 10, small enough for a CPU, with an exact checker.

A question reads `Modulo 10, start at 7. a + 3. b * 4. Show that the result is 0.` and its proof has
one line per step, `a 7 + 3 = 0`.
"""

from proofloop.method.domains.nano.chain import (
    LABELS,
    MAX_CHARACTERS,
    MODULUS,
    OPERATORS,
    Chain,
    Line,
    Step,
    calculate,
    draw_chain,
    parse_proof,
    parse_question,
    render_proof,
    render_question,
    true_lines,
)
from proofloop.method.domains.nano.checker import (
    FLAW_KINDS,
    NO_ISSUE,
    UNREADABLE,
    Analysis,
    NanoChecker,
    check_critique,
    check_proof,
    find_defects,
    omission,
    parse_analysis,
    render_analysis,
    score_of,
)
from proofloop.method.domains.nano.domain import LENGTHS, NanoDomain

__all__ = [
    "FLAW_KINDS",
    "LABELS",
    "LENGTHS",
    "MAX_CHARACTERS",
    "MODULUS",
    "NO_ISSUE",
    "OPERATORS",
    "UNREADABLE",
    "Analysis",
    "Chain",
    "Line",
    "NanoChecker",
    "NanoDomain",
    "Step",
    "calculate",
    "check_critique",
    "check_proof",
    "draw_chain",
    "find_defects",
    "omission",
    "parse_analysis",
    "parse_proof",
    "parse_question",
    "render_analysis",
    "render_proof",
    "render_question",
    "score_of",
    "true_lines",
]
