"""`proofloop dead`: messages that nobody could handle.

Those of services lie on the broker, those of a run in one process in the store. With
PROOFLOOP_BROKER set a run may have been either, so both are asked.
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
from proofloop.pipeline.embedded import DeadLetterRecord, LocalWalk, letters_in
from proofloop.schema import keys
from proofloop.schema.events import read_event_of
from proofloop.store import Store

app = typer.Typer(help="Dead letters of a run: look, try again, or drop.", no_args_is_help=True)

RunOption = Annotated[
    str | None,
    typer.Option(
        "--run",
        help="The run's name; on a broker it may be left out: all of them, also what is no event.",
    ),
]


@app.command("list")
def list_dead(
    run: RunOption = None, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """Every dead letter with its queue and the reason."""
    letters = _on_broker(run)
    if here := _local(run, store):
        letters += letters_in(*here)
    emit(
        [letter.model_dump() for letter in letters],
        as_json=as_json,
        title=f"dead letters of {run or 'all runs'}",
    )


@app.command("replay")
def replay(run: RunOption = None, store: StoreOption = None) -> None:
    """Deliver every dead letter again: the broker's to the services, the store's here, waiting for
    what follows.
    """
    count, rest = 0, ""
    if load_settings().broker:
        count += open_dead_letters(load_settings()).replay(lambda letter: _is_of(letter, run))
    if (here := _local(run, store)) and letters_in(*here):
        delivered, died = _replay_here(*here)
        count, rest = count + delivered, f", {died} died again"
    print(f"{count} messages delivered again{rest}")


def _replay_here(store: Store, run: str) -> tuple[int, int]:
    """How many were delivered, and died. One leaves the store when all that follows is done; what
    is no event stays.
    """
    engines = open_engines(store)
    try:
        spec = need_run(store, run)
        with (
            stopping_on_signal() as stopping,
            LocalWalk(store, engines, spec, stopping=stopping) as walk,
        ):
            letters = letters_in(store, run)
            events = [letter.event for letter in letters if letter.event is not None]
            died = walk.replay(events)
            store.delete_prefix(keys.dead_letters(run))
            for letter in [*died, *(letter for letter in letters if letter.event is None)]:
                letter.keep(store, run)
    finally:
        engines.close()
    return len(events), len(died)


@app.command("drop")
def drop(run: RunOption = None, store: StoreOption = None) -> None:
    """Forget every dead letter of the run."""
    count = 0
    if load_settings().broker:
        count += open_dead_letters(load_settings()).drop(lambda letter: _is_of(letter, run))
    if here := _local(run, store):
        count += here[0].delete_prefix(keys.dead_letters(here[1]))
    print(f"{count} dead letters dropped")


def find_letters(store: Store, run: str) -> list[DeadLetterRecord]:
    """A run's dead letters, wherever they lie. Raises BusError if the broker is away."""
    return _on_broker(run) + letters_in(store, run)


def _local(run: str | None, store: StoreOption) -> tuple[Store, str] | None:
    """The store and the run whose letters it may hold; None where only the broker can have any.
    Raises ConfigError.
    """
    has_broker = load_settings().broker is not None
    if run is None and has_broker:
        return None
    if run is None:
        raise ConfigError(
            "which run?",
            "give --run NAME; without it only the dead letters of a broker can be seen",
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
    """Whether a dead letter is of that run; any is of None."""
    return run is None or read_event_of(run, letter.body) is not None
