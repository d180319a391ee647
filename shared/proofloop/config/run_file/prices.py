"""What a run costs, and what it may cost: [prices] and [budget] of a run file."""

from __future__ import annotations

from pydantic import Field

from proofloop.config.section import Section
from proofloop.schema.records import Role


class EnginePrices(Section):
    """The prices of an engine, in any one currency."""

    per_million_prompt_tokens: float = Field(
        0.0, ge=0, description="price of a million prompt tokens; not used by a curriculum"
    )
    per_million_completion_tokens: float = Field(
        0.0, ge=0, description="price of a million answer tokens; not used by a curriculum"
    )
    per_engine_hour: float = Field(
        0.0, ge=0, description="price of an hour of the engine; in a curriculum, of its stages"
    )


class RolePrices(Section):
    """The prices of one role's engine, where they differ from [prices]."""

    per_million_prompt_tokens: float | None = Field(
        None, ge=0, description="replaces the price of [prices]"
    )
    per_million_completion_tokens: float | None = Field(
        None, ge=0, description="replaces the price of [prices]"
    )
    per_engine_hour: float | None = Field(None, ge=0, description="replaces the price of [prices]")


class Prices(EnginePrices):
    """The prices of all engines. The tables of single roles override them."""

    generator: RolePrices = RolePrices()
    verifier: RolePrices = RolePrices()
    meta_verifier: RolePrices = RolePrices()

    def of(self, role: Role) -> EnginePrices:
        own: RolePrices = getattr(self, role, RolePrices())
        shared = {name: getattr(self, name) for name in EnginePrices.model_fields}
        return EnginePrices(**{**shared, **own.model_dump(exclude_none=True)})


class Budget(Section):
    """The most that a run may use in total, over all resumes. By default there is no limit.

    The run stops at a limit. Raise the limit and use --resume to continue.
    """

    tokens: int | None = Field(
        None, ge=1, description="the most tokens of prompts and answers together"
    )
    money: float | None = Field(
        None, gt=0, description="the most money, in the currency of [prices]"
    )
    hours: float | None = Field(None, gt=0, description="the most hours of `proofloop run`")
