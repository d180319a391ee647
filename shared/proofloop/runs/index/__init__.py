"""An index of a store's runs for tables: one SQLite file in the cache folder.

It copies the facts of labels and proofs, but no texts. It may be deleted at any time: the next
reader fills it again.
"""

from __future__ import annotations

from proofloop.runs.index.database import Index, open_index

__all__ = ["Index", "open_index"]
