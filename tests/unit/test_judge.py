"""Why the watchdog is silent: the sentinel's rules over readings that are made up."""

from __future__ import annotations

from typing import Any

import pytest

from watchdog_hook import errand
from watchdog_hook.sentinel.judge import Verdict, judge
from watchdog_hook.sentinel.proc import Reading, Thread

LOOP, WATCHDOG, OTHER = 100, 101, 102
READINGS = 5


Seen = tuple[str, float, int] | tuple[str, float, int, int]


def verdict(
    watchdog: Seen | None = ("S", 0.0, 0),
    loop: Seen = ("S", 0.0, 0),
    other: Seen = ("S", 0.0, 0),
    wchan: str = "",
    beating: bool = False,
    **process: Any,
) -> Verdict:
    """
    Judge threads given as state, share of a processor, times a second that they go to sleep, and major faults.

    A state of several letters is one for each reading.
    """
    threads = {LOOP: loop, OTHER: other}
    if watchdog is not None:
        threads[WATCHDOG] = watchdog
    growing = {name: process.pop(name) for name in ("faults", "memory_wait") if name in process}
    stops = process.pop("stops", (0, 0))
    above = process.pop("above", (0, 0))
    readings = []
    for number in range(READINGS):
        at = number / (READINGS - 1)
        seen = {
            tid: Thread(
                state[number % len(state)],
                7 + share * at,
                round(70 + rate * at),
                wchan,
                round(30 + sum(faults) * at),
            )
            for tid, (state, share, rate, *faults) in threads.items()
        }
        rest = {name: 3 + each * at for name, each in growing.items()}
        limits = [tuple(round(40 + each * at) for each in limit) for limit in (stops, above)]
        readings.append(Reading(1000 + at, seen, stops=limits, **process, **rest))
    return judge(readings, WATCHDOG, LOOP, beating=beating)


ASKS = ("S", 0.005, 190)
RUNS = ("R", 0.97, 0)
STOPPED = ("T", 0.0, 0)
TRACED = ("t", 0.0, 0)
HUNGRY = ("R", 0.001, 1)


@pytest.mark.parametrize(
    ("cause", "given"),
    [
        ("gil_held", {"watchdog": ASKS, "loop": RUNS}),
        ("gil_held", {"watchdog": ASKS, "other": RUNS}),
        ("gil_held", {"watchdog": ASKS}),
        ("gil_held", {"watchdog": ASKS, "loop": RUNS, "stops": (10, 1), "frozen": False}),
        ("stopped", {"watchdog": STOPPED, "loop": STOPPED, "other": STOPPED}),
        ("stopped", {"watchdog": None, "loop": STOPPED}),
        ("traced", {"watchdog": TRACED, "loop": TRACED, "tracer": 7}),
        ("frozen", {"frozen": True}),
        ("frozen", {"watchdog": ("D", 0.0, 0), "loop": ("D", 0.0, 0), "frozen": True}),
        ("watchdog_gone", {"watchdog": None}),
        ("watchdog_gone", {"watchdog": None, "loop": RUNS}),
        ("uninterruptible", {"watchdog": ("D", 0.0, 0)}),
        ("uninterruptible", {"watchdog": ASKS, "loop": ("D", 0.0, 0)}),
        ("uninterruptible", {"watchdog": ASKS, "other": ("D", 0.0, 0)}),
        ("starved", {"watchdog": HUNGRY}),
        ("starved", {"other": HUNGRY}),
        ("starved", {"watchdog": HUNGRY, "loop": HUNGRY, "stops": (10, 10)}),
        ("starved", {"watchdog": ASKS, "loop": HUNGRY}),
        ("starved", {"watchdog": ASKS, "loop": ("R", 0.2, 4), "other": ("R", 0.2, 4)}),
        ("gil_contended", {"watchdog": ASKS, "loop": ("S", 0.5, 80), "other": ("R", 0.5, 80)}),
        ("starved", {"watchdog": ASKS, "loop": ("R", 0.02, 0), "other": ("R", 0.1, 1)}),
        ("gil_held", {"watchdog": ("R", 0.01, 150)}),
        # Beside one that holds it: a thread that computes without it, and one that wants it too.
        ("gil_held", {"watchdog": ASKS, "loop": RUNS, "other": RUNS}),
        ("gil_held", {"watchdog": ASKS, "loop": RUNS, "other": ASKS}),
        ("swapping", {"watchdog": ("D", 0.0, 30), "faults": 500, "memory_wait": 0.8}),
        # Slow devices, where each page takes long and those read ahead are waited for too.
        ("swapping", {"watchdog": ASKS, "loop": ("D", 0.0, 88, 88)}),
        ("swapping", {"watchdog": ASKS, "loop": ("D", 0.0, 6, 2)}),
        ("swapping", {"watchdog": ASKS, "loop": ("DRDDD", 0.01, 95, 95)}),
        ("swapping", {"watchdog": ASKS, "loop": ("RRDDD", 0.04, 54, 55)}),
        ("swapping", {"watchdog": ("D", 0.0, 9, 10), "loop": ("S", 0.0, 188, 1)}),
        # By turns, as the interpreter passes.
        ("swapping", {"watchdog": ("SRDDD", 0.0, 67, 5), "loop": ("DDSSS", 0.0, 117, 5)}),
        (
            "swapping",
            {"watchdog": ("DDSSD", 0.01, 459, 9), "loop": ("RSDDS", 0.01, 412, 9)},
        ),
        # The watchdog starts a thread, which asks for the interpreter.
        ("swapping", {"loop": ("D", 0.0, 63, 26), "other": ("S", 0.01, 159)}),
        # Fast ones: an SSD, and compressed memory, which nobody sleeps for.
        ("swapping", {"watchdog": ASKS, "loop": ("RRDDR", 0.32, 6142, 6162)}),
        ("swapping", {"watchdog": ASKS, "loop": ("R", 0.47, 0, 16654)}),
        # Not where it waits for a file server, computes, or somebody else does meanwhile.
        ("uninterruptible", {"watchdog": ASKS, "loop": ("D", 0.0, 60, 1)}),
        ("uninterruptible", {"watchdog": ASKS, "loop": ("D", 0.0, 1, 0), "other": ("S", 0, 5, 5)}),
        ("gil_held", {"watchdog": ASKS, "loop": ("R", 0.97, 30, 30)}),
        ("gil_held", {"watchdog": ASKS, "loop": ("R", 0.8, 600, 600)}),
        ("gil_held", {"watchdog": ASKS, "loop": RUNS, "other": ("DSDSD", 0.0, 30, 30)}),
        ("unknown", {"other": ("D", 0.0, 30, 30)}),
        ("unknown", {}),
        # A tracer that lets it run, a sleeper in D that nobody waits for, memory that somebody else wants.
        ("unknown", {"tracer": 7}),
        ("unknown", {"other": ("D", 0.0, 0)}),
        ("unknown", {"faults": 500, "memory_wait": 0.01}),
        ("unknown", {"faults": 1, "memory_wait": 0.9}),
        ("unknown", {"loop": RUNS}),
        ("unknown", {"watchdog": RUNS}),
    ],
)
def test_each_cause_has_its_readings(cause, given):
    assert verdict(**given).id == cause


def test_who_waits_for_an_errand_is_far_from_asking_for_the_interpreter():
    """Three times as often, as where each wake-up takes two turns more for want of the interpreter."""
    often = 3 / errand.STEP

    assert verdict(watchdog=("S", 0.001, round(often))).id == "unknown"
    assert verdict(watchdog=("S", 0.005, 64)).id == "gil_held"  # the least on a crowded machine


def test_only_what_cannot_end_by_itself_may_be_ended():
    given = [
        {"watchdog": ASKS, "loop": RUNS},
        {"watchdog": None},
        {},
        {"watchdog": STOPPED},
        {"tracer": 7, "watchdog": TRACED},
        {"frozen": True},
        {"watchdog": ("D", 0.0, 0)},
        {"watchdog": HUNGRY},
        {"watchdog": ASKS, "loop": HUNGRY},
        {"faults": 500, "memory_wait": 0.8},
        {"watchdog": ASKS, "loop": ("DRDDD", 0.01, 95, 95)},
        {"watchdog": ASKS, "loop": ("S", 0.5, 80), "other": ("R", 0.5, 80)},
    ]
    found = {each.id: each.may_end for each in (verdict(**one) for one in given)}

    assert {cause for cause, may in found.items() if may} == {
        "gil_held",
        "watchdog_gone",
        "unknown",
    }
    assert len(found) == 10


@pytest.mark.parametrize("held", [{"watchdog": ASKS, "loop": RUNS}, {"watchdog": ASKS}, {}])
def test_a_process_whose_pages_come_from_a_disk_may_go_on_by_itself(held):
    calm, paging = verdict(**held, faults=0.5), verdict(**held, faults=2)

    assert calm.id == paging.id
    assert (calm.may_end, paging.may_end) == (True, False)
    assert paging.incident


def test_a_hidden_process_is_neither_asked_nor_ended():
    found = judge([Reading(1.0, None), Reading(2.0, None)], WATCHDOG, LOOP)

    assert (found.id, found.ask, found.may_end) == ("hidden", False, False)


def test_a_dump_is_asked_for_only_where_the_loop_runs_no_python_code():
    assert verdict(watchdog=ASKS, loop=RUNS).all_threads
    assert verdict(watchdog=ASKS).ask
    assert verdict(watchdog=None).ask
    assert not verdict(watchdog=None).all_threads
    assert not verdict(watchdog=None, beating=True).ask
    assert not verdict(watchdog=None, loop=RUNS).ask
    assert not verdict(loop=RUNS).ask
    assert not verdict(watchdog=HUNGRY).ask
    assert not verdict(watchdog=ASKS, loop=("S", 0.5, 80), other=("R", 0.5, 80)).ask


def test_the_sentence_names_who_and_where():
    assert "The loop's thread computes" in verdict(watchdog=ASKS, loop=RUNS).sentence
    assert f"Thread {OTHER} computes" in verdict(watchdog=ASKS, other=RUNS).sentence
    waits = verdict(watchdog=ASKS, loop=("D", 0.0, 0), wchan="nfs_wait_bit").sentence
    assert "The loop's thread is in uninterruptible sleep in nfs_wait_bit" in waits
    swapping = verdict(watchdog=ASKS, loop=("D", 0.0, 6, 2), faults=1.6, swapped=98304)
    assert "1.6 pages a second" in swapping.sentence
    assert any("The loop's thread: state D" in sign for sign in swapping.signs)
    assert swapping.signs[-1] == "96 MB of the process are in swap"
    limited = verdict(watchdog=HUNGRY, stops=(10, 9)).sentence
    assert "CPU limit stopped it in 90 % of the limit's periods" in limited
    assert "others have" in verdict(watchdog=HUNGRY, stops=(10, 2)).sentence
    pods = verdict(watchdog=HUNGRY, stops=(10, 0), above=(10, 9)).sentence
    assert "CPU limit stopped it in 90 % of the limit's periods" in pods
    assert "Process 7" in verdict(watchdog=TRACED, tracer=7).sentence
