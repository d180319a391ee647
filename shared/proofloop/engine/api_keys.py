"""The keys that engines send to their servers: from environment variables or secret files, never
from a run file, which is stored with the run.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import SecretStr

from proofloop.errors import ConfigError


def read_api_key(variable: str) -> SecretStr | None:
    """The value of an environment variable, else of the file of that name in PROOFLOOP_SECRETS.

    None if neither exists or the value is blank. Raises ConfigError if the file cannot be read.
    """
    folder = os.environ.get("PROOFLOOP_SECRETS")
    file = Path(folder, variable.lower()) if folder else None
    try:
        value = os.environ.get(variable) or (file.read_text() if file and file.is_file() else "")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the secret in {file} cannot be read: {type(error).__name__}",
            "correct the file's permissions and contents",
        ) from error
    return SecretStr(value.strip()) if value.strip() else None
