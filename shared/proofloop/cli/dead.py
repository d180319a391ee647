"""`proofloop dead`: messages that nobody could handle. They lie on the broker if there is one, else in the store."""

from __future__ import annotations

from typing import Annotated

import typer

from proofloop import keys
from proofloop.bus import DeadLetter, open_dead_letters
from proofloop.cli.common import JsonOption, StoreOption, emit, need_run, open_engines, open_store, stopping_on_signal
from proofloop.errors import ConfigError, Reject
from proofloop.messages import Event, decode
from proofloop.settings import load_settings
from proofloop.store import Store, get_record
from proofloop.walk import DeadLetterRecord, LocalWalk

app = typer.Typer(help="Dead letters of a run: look, try again, or drop.", no_args_is_help=True)

RunOption = Annotated[
    str | None,
    typer.Option("--run", help="The run's name; on a broker it may be left out: all of them, also what is no event."),
]


@app.command("list")
def list_dead(run: RunOption = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Every dead letter with its queue and the reason."""
    letters = _on_broker(run) if load_settings().broker else _letters(*_local(run, store))
    emit([letter.model_dump() for letter in letters], as_json=as_json, title=f"dead letters of {run or 'all runs'}")


@app.command("replay")
def replay(run: RunOption = None, store: StoreOption = None) -> None:
    """Deliver every dead letter again; without a broker wait until all that follows is done."""
    if load_settings().broker:
        count = open_dead_letters(load_settings()).replay(lambda letter: _is_of(letter, run))
        print(f"{count} messages delivered again")
        return
    data, name = _local(run, store)
    spec = need_run(data, name)
    events = [event for event in map(_event, _letters(data, name)) if event is not None]
    data.delete_prefix(keys.dead_letters(name))
    engines = open_engines(data)
    try:
        with stopping_on_signal() as stopping, LocalWalk(data, engines, spec, stopping=stopping) as walk:
            walk.replay(events)
    finally:
        engines.close()
    left = sum(1 for _ in data.list(keys.dead_letters(name)))
    print(f"{len(events)} messages delivered again, {left} died again")


@app.command("drop")
def drop(run: RunOption = None, store: StoreOption = None) -> None:
    """Forget every dead letter of the run."""
    if load_settings().broker:
        count = open_dead_letters(load_settings()).drop(lambda letter: _is_of(letter, run))
    else:
        data, name = _local(run, store)
        count = data.delete_prefix(keys.dead_letters(name))
    print(f"{count} dead letters dropped")


def _local(run: str | None, store: StoreOption) -> tuple[Store, str]:
    if run is None:
        raise ConfigError("which run?", "give --run NAME; without it only the dead letters of a broker can be seen")
    data = open_store(store, must_exist=True)
    need_run(data, run)
    return data, run


def _on_broker(run: str | None) -> list[DeadLetterRecord]:
    letters = open_dead_letters(load_settings()).letters()
    return [DeadLetterRecord.of(letter) for letter in letters if _is_of(letter, run)]


def _is_of(letter: DeadLetter, run: str | None) -> bool:
    """Whether a dead letter is of that run; any is of None."""
    if run is None:
        return True
    try:
        return decode(letter.body).run_id == run
    except Reject:
        return False


def _letters(store: Store, run: str) -> list[DeadLetterRecord]:
    return [get_record(store, key, DeadLetterRecord) for key in store.list(keys.dead_letters(run))]


def _event(letter: DeadLetterRecord) -> Event | None:
    """The letter's event, None for a body that can never be one."""
    try:
        return decode(letter.body.encode())
    except Reject:
        return None
