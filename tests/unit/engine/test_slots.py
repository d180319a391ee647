"""The slots of an engine: by priority, then by arrival, and none is lost."""

from __future__ import annotations

import asyncio

from proofloop.engine.slots import Slots


async def call(slots: Slots, priority: int, started: list[int], end: asyncio.Event) -> None:
    async with slots.hold(priority):
        started.append(priority)
        await end.wait()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_waiting_calls_start_by_priority() -> None:
    async def main() -> list[int]:
        slots, started, end = Slots(1), list[int](), asyncio.Event()
        calls = [
            asyncio.create_task(call(slots, priority, started, end)) for priority in (9, 3, 0, 3, 1)
        ]
        await settled()
        assert started == [9]
        end.set()
        await asyncio.gather(*calls)
        return started

    assert asyncio.run(main()) == [9, 0, 1, 3, 3]


def test_a_cancelled_call_gives_its_place_to_the_next() -> None:
    async def main() -> list[int]:
        slots, started, end = Slots(2), list[int](), asyncio.Event()
        calls = [asyncio.create_task(call(slots, number, started, end)) for number in range(5)]
        await settled()
        calls[2].cancel()  # it waits
        calls[0].cancel()  # it holds a slot
        await settled()
        assert started == [0, 1, 3]
        end.set()
        await asyncio.gather(*calls, return_exceptions=True)
        return started

    assert asyncio.run(main()) == [0, 1, 3, 4]


def test_a_call_cancelled_while_its_slot_is_granted_passes_it_on() -> None:
    async def main() -> list[int]:
        slots, started, end = Slots(1), list[int](), asyncio.Event()
        calls = [asyncio.create_task(call(slots, number, started, end)) for number in range(3)]
        await settled()
        slots.give()  # grants the slot to call 1, which has not run since
        calls[1].cancel()
        await settled()
        assert started == [0, 2]
        end.set()
        await asyncio.gather(*calls, return_exceptions=True)
        return started

    assert asyncio.run(main()) == [0, 2]
