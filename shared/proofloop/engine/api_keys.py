"""The keys that engines send to their servers: from environment variables or secret files, never
from a run file, which is stored with the run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, SecretStr

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


def _fits_a_header(value: SecretStr | None) -> SecretStr | None:
    # A key read from a file ends in a newline.
    key = value.get_secret_value().strip() if value else ""
    if not key.isascii() or not key.isprintable():
        raise ValueError("must be printable ASCII without line breaks")
    return SecretStr(key) if key else None


def redact(text: str, key: SecretStr | None, length: int) -> str:
    """The text without the key, printable, in one line, shortened, for logs and errors."""
    secret = key.get_secret_value() if key else ""
    line = " ".join((text.replace(secret, "***") if secret else text).split())
    line = "".join(character if character.isprintable() else "\ufffd" for character in line)
    return line if len(line) <= length else line[:length] + " ..."


HeaderKey = Annotated[SecretStr | None, AfterValidator(_fits_a_header)]
"""A setting whose value is sent in a header; None if it is blank."""
