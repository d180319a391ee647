"""`proofloop dead`: messages that nobody could handle."""

from __future__ import annotations

from typing import Annotated

import typer

from proofloop import keys
from proofloop.cli.common import JsonOption, StoreOption, emit, need_run, open_engines, open_store, stopping_on_signal
from proofloop.errors import Reject
from proofloop.messages import Event, decode
from proofloop.store import LocalStore, get_record
from proofloop.walk import DeadLetterRecord, LocalWalk

app = typer.Typer(help="Dead letters of a run: look, try again, or drop.", no_args_is_help=True)

RunOption = Annotated[str, typer.Option("--run", help="The run's name.")]


@app.command("list")
def list_dead(run: RunOption, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Every dead letter with its queue and the reason."""
    data = open_store(store)
    need_run(data, run)
    emit([letter.model_dump() for letter in _letters(data, run)], as_json=as_json, title=f"dead letters of {run}")


@app.command("replay")
def replay(run: RunOption, store: StoreOption = None) -> None:
    """Deliver every dead letter again and wait until all that follows is done."""
    data = open_store(store)
    spec = need_run(data, run)
    events = [event for event in map(_event, _letters(data, run)) if event is not None]
    data.delete_prefix(keys.dead_letters(run))
    engines = open_engines(data)
    try:
        with stopping_on_signal() as stopping, LocalWalk(data, engines, spec, stopping=stopping) as walk:
            walk.replay(events)
    finally:
        engines.close()
    left = sum(1 for _ in data.list(keys.dead_letters(run)))
    print(f"{len(events)} messages delivered again, {left} died again")


@app.command("drop")
def drop(run: RunOption, store: StoreOption = None) -> None:
    """Forget every dead letter of the run."""
    data = open_store(store)
    need_run(data, run)
    print(f"{data.delete_prefix(keys.dead_letters(run))} dead letters dropped")


def _letters(store: LocalStore, run: str) -> list[DeadLetterRecord]:
    return [get_record(store, key, DeadLetterRecord) for key in store.list(keys.dead_letters(run))]


def _event(letter: DeadLetterRecord) -> Event | None:
    """The letter's event, None for a body that can never be one."""
    try:
        return decode(letter.body.encode())
    except Reject:
        return None
