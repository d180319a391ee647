"""The number of critiques to request of a proof: those that its label needs, and few more.

k confirmed critiques with score 0 reject a proof, so k critiques come first, and then as many as
are still lacking. A proof whose first k judged critiques confirm no issue is probably accepted,
which takes all n. One more than needed is in flight once k are judged: waiting for one critique at
a time would leave slots idle. The labels are those of asking for all n at once: only the order and
the number of calls differ.
"""

from __future__ import annotations

from collections.abc import Collection

from proofloop.schema.records import Judgement


def first_critiques(*, n: int, k: int) -> int:
    """The number of critiques to request before any is judged."""
    return critiques_to_ask((), n=n, k=k)


def critiques_to_ask(judged: Collection[Judgement], *, n: int, k: int) -> int:
    """How many of the n critiques to request so far, given the judged ones of an undecided proof.

    Always more than are judged, until it is n.
    """
    if len(judged) >= k and not any(judgement.confirmed for judgement in judged):
        return n
    zeros = sum(judgement.verdict.score == 0 and bool(judgement.confirmed) for judgement in judged)
    in_flight = max(1, k - zeros) + (len(judged) >= k)
    return min(n, len(judged) + in_flight)
