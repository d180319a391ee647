"""The settings of the engines, from the classes that check them."""

from __future__ import annotations

from scripts.reference.tables import about, keys_table

from proofloop.engine import BUILT_IN, get_engine

SECRETS = ("api_key", "admin_key")
"""Keys that come from the environment; a run file with one is refused."""


def sections() -> list[str]:
    return [_section(kind) for kind in BUILT_IN]


def _section(kind: str) -> str:
    info = get_engine(kind)
    return "\n\n".join(
        [
            f"## `{kind}`",
            about(info.settings),
            keys_table(info.settings, leave_out=SECRETS, changeable=info.changeable),
        ]
    )
