"""An index of a store's runs: one SQLite file in the cache folder, which tables are read from.

It copies the facts of labels and proofs, and never their texts. It may be deleted at any time: the
next reader fills it again.
"""

from __future__ import annotations

from proofloop.runs.index.database import Index, open_index

__all__ = ["Index", "open_index"]
