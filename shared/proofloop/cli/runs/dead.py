"""`proofloop dead`: lists, replays and drops dead letters.

The dead letters of services are on the broker, those of a run in one process in the store. With
PROOFLOOP_BROKER set the commands look in both places, because a run may have used either.
"""

from __future__ import annotations

from typing import Annotated

import typer

from proofloop.bus import DeadLetter, open_dead_letters
from proofloop.cli.common import (
    JsonOption,
    StoreOption,
    emit,
    need_run,
    open_engines,
    open_store,
    stopping_on_signal,
)
from proofloop.config.settings import load_settings
from proofloop.errors import ConfigError
from proofloop.pipeline.embedded import EmbeddedPipeline
from proofloop.runs.dead_letters import DeadLetterRecord, letters_in
from proofloop.schema import keys
from proofloop.schema.events import read_event_of
from proofloop.store import Store

app = typer.Typer(
    help="Dead letters: messages that no service could handle. List, replay or drop them.",
    no_args_is_help=True,
)

RunOption = Annotated[
    str | None,
    typer.Option(
        "--run",
        help="The run's name; with a broker, leave it out for all dead letters.",
    ),
]


BODY_CHARACTERS = 300
"""The longest body in a table; an event's is shorter."""


@app.command("list")
def list_dead(
    run: RunOption = None, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """List dead letters with queue and reason. A table cuts long bodies, --json does not."""
    letters = _on_broker(run)
    if here := _local(run, store):
        letters += letters_in(*here)
    longest = None if as_json else BODY_CHARACTERS
    emit(
        [letter.model_dump() | {"body": letter.body[:longest]} for letter in letters],
        as_json=as_json,
        title=f"dead letters of {run or 'all runs'}",
    )


@app.command("replay")
def replay(run: RunOption = None, store: StoreOption = None) -> None:
    """Deliver dead letters again.

    The services handle those of the broker. This process handles those of the store, and waits
    until the work is done.
    """
    count = 0
    failed = ""
    if load_settings().broker:
        count += open_dead_letters(load_settings()).replay(lambda letter: _is_of(letter, run))
    if (here := _local(run, store)) and letters_in(*here):
        delivered, failed_again = _replay_here(*here)
        count += delivered
        failed = f", {failed_again} failed again"
    print(f"{count} messages delivered again{failed}")


def _replay_here(store: Store, run: str) -> tuple[int, int]:
    """Deliver the dead letters again. Returns how many were delivered, and how many of them failed
    again. A dead letter is deleted from the store after all its follow-up work. One without an
    event is kept.
    """
    spec = need_run(store, run)
    with (
        open_engines(store) as engines,
        stopping_on_signal() as stopping,
        EmbeddedPipeline(store, engines, spec, stopping=stopping) as pipeline,
    ):
        letters = letters_in(store, run)
        events = [letter.event for letter in letters if letter.event is not None]
        failed = pipeline.replay(events)
        store.delete_prefix(keys.dead_letters(run))
        for letter in [*failed, *(letter for letter in letters if letter.event is None)]:
            letter.keep(store, run)
    return len(events), len(failed)


@app.command("drop")
def drop(run: RunOption = None, store: StoreOption = None) -> None:
    """Delete dead letters."""
    count = 0
    if load_settings().broker:
        count += open_dead_letters(load_settings()).drop(lambda letter: _is_of(letter, run))
    if here := _local(run, store):
        count += here[0].delete_prefix(keys.dead_letters(here[1]))
    print(f"{count} dead letters dropped")


def find_letters(store: Store, run: str) -> list[DeadLetterRecord]:
    """A run's dead letters on the broker and in the store. Raises BusError if the broker is
    unavailable.
    """
    return _on_broker(run) + letters_in(store, run)


def _local(run: str | None, store: StoreOption) -> tuple[Store, str] | None:
    """The store and the run to search; None if only the broker can have the dead letters. Raises
    ConfigError.
    """
    has_broker = load_settings().broker is not None
    if run is None and has_broker:
        return None
    if run is None:
        raise ConfigError(
            "--run is missing, and PROOFLOOP_BROKER is not set",
            "give --run NAME; only a broker can list the dead letters of all runs",
        )
    data = open_store(store, must_exist=True)
    if not has_broker:
        need_run(data, run)
    return data, run


def _on_broker(run: str | None) -> list[DeadLetterRecord]:
    if not load_settings().broker:
        return []
    letters = open_dead_letters(load_settings()).letters()
    return [DeadLetterRecord.of(letter) for letter in letters if _is_of(letter, run)]


def _is_of(letter: DeadLetter, run: str | None) -> bool:
    """Whether the dead letter belongs to the run; with None, always."""
    return run is None or read_event_of(run, letter.body) is not None
