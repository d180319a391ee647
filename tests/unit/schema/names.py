"""Draws names of answers."""

from __future__ import annotations

from hypothesis import strategies as st

from proofloop.schema.ids import (
    PROOF,
    SELF_CRITIQUE,
    attempt_name,
    critique_name,
    meta_name,
    unread_name,
)

indices = st.integers(0, 99_999)
answer_names = (
    st.just(PROOF)
    | st.builds(attempt_name, indices)
    | st.builds(critique_name, indices)
    | st.builds(unread_name, indices)
    | st.builds(meta_name, st.just(SELF_CRITIQUE) | indices, st.integers(0, 999))
)
