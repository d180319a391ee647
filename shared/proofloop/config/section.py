"""The base of all sections of the files that people write."""

from pydantic import BaseModel, ConfigDict

LARGEST_SEED = 2**32 - 1
"""The largest random seed that training accepts."""


class Section(BaseModel):
    """Unknown keys are errors, and so is a number written as `"8"` or `true`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
