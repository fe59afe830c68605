"""faulthandler in a real process: taken where it is free, left alone where it is not, and given back."""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.victims import seccomp

pytestmark = pytest.mark.linux

ROOT = Path(__file__).parents[2]
SETUP = """
import faulthandler, glob, json, os, signal, statistics, sys, threading, time
from watchdog_hook import Config, Watchdog
from watchdog_hook.actions import backstop
from watchdog_hook.sentinel import pulse

def dog(**settings):
    quick = {"poll_interval": 0.05, "interrupt": "off", "incident_dir": sys.argv[1], "sentinel": False}
    return Watchdog(Config(**{**quick, **settings}))

def looks(dog, number=3):
    for _ in range(number):
        tick = dog.outside.pulse.numbers[pulse.TICK_AT]
        while dog.outside.pulse.numbers[pulse.TICK_AT] == tick:
            dog.beat()
            time.sleep(0.001)

def timers():
    # Most of the time: one that was stopped may still be listed, and for a moment none is while it is put off.
    found = []
    for _ in range(21):
        found.append(len(backstop._strangers()))
        time.sleep(0.002)
    return statistics.mode(found)

def tasks():
    return len(os.listdir("/proc/self/task"))

def say(**facts):
    print(json.dumps(facts), flush=True)
"""


def run(folder: Path, program: str, **options: object) -> tuple[dict, str]:
    """Return what a program says at its end, and its standard error."""
    done = subprocess.run(
        [
            sys.executable,
            *options.pop("python", ()),
            "-c",
            SETUP + textwrap.dedent(program),
            str(folder),
        ],  # type: ignore[misc]
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_it_takes_the_timer_a_signal_and_the_fatal_ones_and_gives_them_back(tmp_path):
    said, _ = run(
        tmp_path,
        """
        def files():
            # All but the pulse: its memory is mapped for as long as a beat may come.
            links = map(os.path.realpath, glob.glob("/proc/self/fd/*"))
            return sum(not link.startswith("/memfd:watchdog_hook ") for link in links)

        functions = [getattr(faulthandler, name) for name in dir(faulthandler)]
        before = faulthandler.is_enabled(), timers(), files()
        with dog() as one:
            looks(one)
            number = one.deputies.backstop.signals[0]
            caught = backstop._status("self")["SigCgt"] >> (number - 1) & 1
            during = faulthandler.is_enabled(), timers(), caught, one.deputies.limits()
        while timers():
            pass
        after = faulthandler.is_enabled(), timers(), files()
        caught = backstop._status("self")["SigCgt"] >> (number - 1) & 1
        same = functions == [getattr(faulthandler, name) for name in dir(faulthandler)]
        say(before=before, during=during, after=after, caught=caught, same=same)
        """,
    )

    assert said["during"] == [True, 1, 1, None]
    assert said["after"] == said["before"]
    assert said["after"][:2] == [False, 0]
    assert (said["caught"], said["same"]) == (0, True)


def test_while_the_sentinel_watches_the_timer_is_not_armed(tmp_path):
    # It would fire when a stopped process goes on, and walk over frames that change: that crashes processes.
    said, _ = run(
        tmp_path,
        """
        with dog(sentinel=True) as one:
            looks(one)
            armed = timers()
            limits = one.deputies.limits()
        say(armed=armed, limits=limits)
        """,
    )

    assert said == {"armed": 0, "limits": None}


def test_descriptors_that_the_host_closes_under_us_are_the_hosts_from_then_on(tmp_path):
    said, log = run(
        tmp_path,
        """
        with dog(dump_after=0.5, sample_after=0.2, startup_grace=0) as one:
            looks(one)
            os.closerange(3, 256)
            mine = {}
            for _ in range(30):
                path = f"{sys.argv[1]}/{len(mine)}"
                fd = os.open(path, os.O_RDWR | os.O_CREAT)
                os.ftruncate(fd, 2 << 20)
                mine[fd] = path
            looks(one)
            time.sleep(1)  # long enough for a dump
            looks(one)
            child = os.fork()
            if not child:
                os._exit(sum(not os.path.exists(f"/proc/self/fd/{fd}") for fd in mine))
            lost_in_child = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        lost = [path for fd, path in mine.items() if not os.path.exists(f"/proc/self/fd/{fd}")]
        changed = [path for path in mine.values() if open(path, "rb").read().strip(b"\\0")]
        cut = [path for path in mine.values() if os.stat(path).st_size != 2 << 20]
        say(lost=lost, lost_in_child=lost_in_child, changed=changed, cut=cut)
        """,
    )

    assert said == {"lost": [], "lost_in_child": 0, "changed": [], "cut": []}
    assert "event=dump" in log


@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-"])
def test_nothing_of_ours_takes_the_place_of_a_closed_standard_error(tmp_path, closed):
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c"]
    program = """
        with dog(sentinel=True) as one:
            looks(one)
            while not one.outside.pulse.words[pulse.SENTINEL]:
                looks(one)
            ours = [n for n in range(3) if "memfd" in os.path.realpath(f"/proc/self/fd/{n}")]
            theirs = os.path.realpath(f"/proc/{one.outside.pulse.words[pulse.SENTINEL]}/fd/2")
        say(ours=ours, theirs=theirs)
    """
    done = subprocess.run(
        [*shell, SETUP + textwrap.dedent(program), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
        timeout=50,
    )

    assert json.loads(done.stdout) == {"ours": [], "theirs": "/dev/null"}


def test_who_enabled_faulthandler_before_keeps_it(tmp_path):
    said, _ = run(
        tmp_path,
        """
        with dog() as one:
            looks(one)
        say(enabled=faulthandler.is_enabled())
        """,
        python=["-X", "faulthandler"],
    )

    assert said == {"enabled": True}


def test_who_enables_faulthandler_after_us_keeps_it(tmp_path):
    said, _ = run(
        tmp_path,
        """
        with dog() as one:
            looks(one)
            faulthandler.enable()
        say(enabled=faulthandler.is_enabled())
        """,
    )

    assert said == {"enabled": True}


def test_a_timer_that_somebody_armed_before_is_left_alone(tmp_path):
    said, errors = run(
        tmp_path,
        """
        faulthandler.dump_traceback_later(100)  # never fires: of frames that run it may crash (cpython#140815)
        while not (theirs := backstop._strangers()):
            pass
        with dog(backstop_after=0.3) as one:
            looks(one)
            off = one.deputies.limits()
            looks(one)
            still = backstop._strangers()
        say(off=off, theirs=theirs, still=still)
        """,
    )

    assert "a thread that is not Python's waits with all signals blocked" in said["off"]
    assert errors.count("part=backstop") == 1
    assert len(said["theirs"]) == 1
    assert said["still"] == said["theirs"]  # the same thread: neither stopped nor armed anew


def test_a_timer_that_somebody_arms_after_us_is_left_alone_until_he_takes_it_back(tmp_path):
    said, _ = run(
        tmp_path,
        """
        with dog(backstop_after=30) as one:
            looks(one)
            ours = one.deputies.limits()
            faulthandler.dump_traceback_later(100)  # never fires: of frames that run it may crash (cpython#140815)
            # Ours has been stopped by that, and may still be listed for a while.
            while len(theirs := backstop._strangers()) != 1 or tasks() != threading.active_count() + 1:
                pass
            looks(one)
            off = one.deputies.limits()
            still = backstop._strangers()
            faulthandler.cancel_dump_traceback_later()
            looks(one)
            again = one.deputies.limits(), timers()
        say(ours=ours, off=off, again=again, theirs=theirs, still=still)
        """,
    )

    assert said["ours"] is None
    assert said["off"] == "somebody else has armed faulthandler's timer"
    assert said["still"] == said["theirs"]  # the same thread: neither stopped nor armed anew
    assert said["again"] == [None, 1]


def test_a_signal_that_somebody_has_is_not_taken(tmp_path):
    said, _ = run(
        tmp_path,
        """
        import ctypes
        first, second, third = backstop.CANDIDATES[:3]
        signal.signal(first, lambda *_: None)
        signal.signal(second, signal.SIG_IGN)
        native = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: None)
        libc = ctypes.CDLL(None)
        libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
        libc.signal(third, ctypes.cast(native, ctypes.c_void_p))  # behind Python's back
        with dog() as one:
            taken = one.deputies.backstop.signals[0]
        say(taken=taken, fourth=backstop.CANDIDATES[3])
        """,
    )

    assert said["taken"] == said["fourth"]


def test_a_signal_that_somebody_takes_after_us_stays_his(tmp_path):
    said, _ = run(
        tmp_path,
        """
        got = []
        with dog() as one:
            looks(one)
            number = one.deputies.backstop.signals[0]
            signal.signal(number, lambda *_: got.append(number))
            child = os.fork()
            if not child:
                os.kill(os.getpid(), number)
                os._exit(7 if got else 1)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.kill(os.getpid(), number)
        say(code=code, got=len(got))
        """,
    )

    assert said == {"code": 7, "got": 1}


def test_a_signal_that_was_given_back_and_is_faulthandlers_again_stays_its_new_owners(tmp_path):
    said, errors = run(
        tmp_path,
        """
        with dog() as one:
            looks(one)
            number = one.deputies.backstop.signals[0]
            one.deputies.backstop.disarm()
            faulthandler.register(number)
        os.kill(os.getpid(), number)
        say()
        """,
    )

    assert said == {}
    assert "most recent call first" in errors


def test_a_child_that_ends_as_python_does_ends(tmp_path):
    # The thread of faulthandler's timer does not live on in a child, but its lock does.
    said, _ = run(
        tmp_path,
        """
        with dog() as one:
            looks(one)
            armed = timers()
            child = os.fork()
            if not child:
                signal.alarm(20)
                facts = faulthandler.is_enabled(), one.deputies.backstop
                faulthandler.dump_traceback_later(100)
                faulthandler.cancel_dump_traceback_later()
                sys.exit(0 if facts == (False, None) else 3)
            code = os.waitpid(child, 0)[1]
            again = timers()
            looks(one)
        say(armed=armed, code=code, again=again)
        """,
    )

    assert said == {"armed": 1, "code": 0, "again": 1}


@pytest.mark.parametrize("part", ["_start", "_cancel"])
def test_a_fork_of_a_signal_handler_that_falls_into_another_fork_ends(tmp_path, part):
    said, _ = run(
        tmp_path,
        f"""
        def fork(*_):
            child = os.fork()
            if not child:
                os._exit(0)
            return os.waitpid(child, 0)[1]

        signal.signal(signal.SIGUSR1, fork)
        with dog() as one:
            looks(one)
            backstop_of_one = one.deputies.backstop
            original, fell = backstop_of_one.{part}, []

            def falls_into():
                if not fell and threading.current_thread() is threading.main_thread():
                    fell.append(True)
                    signal.raise_signal(signal.SIGUSR1)
                original()

            backstop_of_one.{part} = falls_into
            signal.alarm(20)
            code = fork()
            signal.alarm(0)
            looks(one)
            armed = timers()
        say(fell=fell, code=code, armed=armed)
        """,
    )

    assert said == {"fell": [True], "code": 0, "armed": 1}


def test_a_handler_that_does_not_return_holds_up_neither_the_watchdog_nor_a_fork(tmp_path):
    said, _ = run(
        tmp_path,
        """
        with dog() as one:
            looks(one)
            taken, over = threading.Event(), threading.Event()

            def keep():
                with one.deputies.backstop._turn:
                    taken.set()
                    over.wait()

            threading.Thread(target=keep, daemon=True).start()
            taken.wait()
            signal.alarm(20)
            child = os.fork()
            if not child:
                os._exit(0)
            code = os.waitpid(child, 0)[1]
            looks(one)
            over.set()
        say(code=code)
        """,
    )

    assert said == {"code": 0}


def test_sentinels_that_are_our_children_are_buried_by_who_comes_after(tmp_path):
    said, _ = run(
        tmp_path,
        """
        import ctypes
        PR_SET_CHILD_SUBREAPER = 36
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)

        def children():
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                return file.read().split()

        ended = []
        for _ in range(3):
            with dog(sentinel=True, backstop_after=1) as one:
                while not one.deputies._sentinel:
                    looks(one)
                sentinel = one.outside.pulse.words[pulse.SENTINEL]
            ended.append(str(sentinel))
            while os.waitid(os.P_PID, sentinel, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                pass
        left = children() == ended[-1:]
        theirs = os.posix_spawn("/bin/true", ["true"], {})
        dog(sentinel=False).__enter__().stop()
        code = os.waitpid(theirs, 0)[1]
        say(left=left, then=children(), code=code)
        """,
    )

    assert said == {"left": True, "then": [], "code": 0}


def test_the_signal_does_nothing_to_a_child(tmp_path):
    said, _ = run(
        tmp_path,
        """
        with dog() as one:
            looks(one)
            number = one.deputies.backstop.signals[0]
            child = os.fork()
            if not child:
                os._exit(backstop._status("self")["SigCgt"] >> (number - 1) & 1)
            code = os.waitpid(child, 0)[1]
        say(code=code)
        """,
    )

    assert said == {"code": 0}


@pytest.mark.parametrize(
    ("settings", "missing"), [("sentinel=False", ""), ("sentinel=True", "sys.executable = ''")]
)
def test_without_a_sentinel_the_timer_writes_to_standard_error(tmp_path, settings, missing):
    _, errors = run(
        tmp_path,
        f"""
        import ctypes
        {missing}
        reading, writing = os.pipe()
        with dog(backstop_after=0.5 {", " if settings else ""}{settings}) as one:
            looks(one)
            if not os.fork():
                time.sleep(2)
                os.write(writing, b"x")
                os._exit(0)
            def held():
                ctypes.PyDLL(None).read(reading, ctypes.create_string_buffer(1), 1)
            held()
            looks(one)
            os.wait()
        say()
        """,
        python=["-W", "ignore"],
    )

    assert "Timeout (" in errors
    assert "in held" in errors
    assert ("part=sentinel" in errors) is bool(missing)


def test_a_watchdog_that_gets_no_thread_leaves_nothing_behind(tmp_path):
    said, _ = run(
        tmp_path,
        """
        one = dog(sentinel=True)
        threading.stack_size(1 << 46)  # more than there is
        try:
            one.start()
        except RuntimeError as error:
            why = str(error)
        mark = one.outside.pulse.words[pulse.MARK]
        say(why=why, mark=mark, taken=backstop.is_taken(), enabled=faulthandler.is_enabled())
        """,
    )

    assert said == {"why": "can't start new thread", "mark": 0, "taken": False, "enabled": False}


def test_a_timer_that_nobody_would_hear_is_said_to_be_off(tmp_path):
    ours, theirs = socket.socketpair()  # as systemd gives it
    with ours, theirs:
        program = """
            with dog() as one:
                looks(one)
                limits = one.deputies.limits()
                armed = timers()
            say(limits=limits, armed=armed)
        """
        done = subprocess.run(
            [sys.executable, "-c", SETUP + textwrap.dedent(program), str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=theirs,
            check=True,
            timeout=50,
        )
        theirs.close()
        said, log = json.loads(done.stdout), ours.recv(65536).decode()

    assert "may have to wait" in said["limits"]
    assert said["armed"] == 0
    assert "part=backstop" in log


UNBURIED = """
        import ctypes
        PR_SET_CHILD_SUBREAPER = 36
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        if child := os.fork():
            os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """


def test_where_no_memory_can_be_shared_one_line_says_what_is_off_without_it(tmp_path):
    if platform.machine() not in seccomp.MEMFD_CREATE:
        pytest.skip(f"the number of memfd_create on {platform.machine()} is not known here")
    said, errors = run(
        tmp_path,
        """
        import platform
        from tests.victims import seccomp
        seccomp.refuse(seccomp.MEMFD_CREATE[platform.machine()])
        with dog(sentinel=True) as one:
            looks(one)
            say(off=sorted(one.fail.off), backstop=one.deputies.backstop is not None)
        """,
    )

    assert said == {"off": ["pulse"], "backstop": False}
    (line,) = errors.splitlines()
    assert 'event=part_off part="pulse"' in line
    assert "Operation not permitted" in line
    assert "no sentinel and no backstop" in line


@pytest.mark.parametrize("first_process", ["", UNBURIED])
def test_a_sentinel_that_was_killed_is_missed_once(tmp_path, first_process):
    said, errors = run(
        tmp_path,
        f"""
        {first_process}
        with dog(poll_interval=0.01, sentinel=True) as one:
            words = one.outside.pulse.words
            while not words[pulse.SENTINEL]:
                one.beat()
            looks(one)
            before = timers()
            os.kill(words[pulse.SENTINEL], signal.SIGKILL)
            while not timers():
                looks(one)
            looks(one, 80)
            after = timers()
        say(before=before, after=after)
        """,
    )

    assert said == {"before": 0, "after": 1}
    assert errors.count("event=part_off") == 1
    assert 'outcome="the sentinel has ended; the backstop speaks for itself"' in errors


def test_the_watchdog_of_a_loop_that_is_over_goes_when_another_loop_begins(tmp_path):
    # It would take the rest of that process for an end that lasts too long, and end it.
    said, _ = run(
        tmp_path,
        """
        from watchdog_hook.integrations.airflow import arming
        from watchdog_hook.ports import Host

        config = Config(poll_interval=0.05, interrupt="off", incident_dir=sys.argv[1], sentinel=False)
        for _ in range(2):
            armed = arming.begin(config, Host(), lambda dog, patches: None, lives_for_it=True)
            looks(armed.dog)
            names = [thread.name for thread in threading.enumerate()]
            taken = armed.dog.deputies.backstop is not None
            arming.disarm(armed)
        say(watchdogs=names.count("watchdog-hook"), taken=taken)
        """,
    )

    assert said == {"watchdogs": 1, "taken": True}


def test_a_second_watchdog_of_a_process_leaves_all_of_it_to_the_first(tmp_path):
    said, _ = run(
        tmp_path,
        """
        first, second = dog(), dog()
        first.start()
        second.start()
        looks(first)
        looks(second)
        limits = first.deputies.limits(), second.deputies.limits()
        nothing = second.deputies.backstop is None
        second.stop()
        looks(first)
        still = timers()
        first.stop()
        third = dog()
        third.start()
        looks(third)
        moved = third.deputies.backstop is not None
        third.stop()
        say(limits=limits, nothing=nothing, still=still, moved=moved)
        """,
    )

    assert said == {"limits": [None, None], "nothing": True, "still": 1, "moved": True}


def test_the_numbers_of_signals_are_those_of_real_time():
    from watchdog_hook.actions.backstop import CANDIDATES

    assert all(signal.SIGRTMIN <= number <= signal.SIGRTMAX for number in CANDIDATES)
