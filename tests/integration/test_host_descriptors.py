"""Hosts that close, replace or have used up their descriptors: theirs stay whole, and what ours lose is said."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.integration.test_backstop import ROOT, SETUP, run

pytestmark = pytest.mark.linux


def run_in(shell: str, folder: Path, program: str, stderr: int) -> dict:
    """Return what a program says at its end whose descriptors that piece of shell has put in order."""
    command = ["sh", "-c", f'exec "$@" {shell}', "sh", sys.executable, "-c"]
    done = subprocess.run(
        [*command, SETUP + textwrap.dedent(program), str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=stderr,
        check=True,
        timeout=50,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["file", "pipe", "socket"])
def test_a_standard_input_that_is_put_in_order_later_takes_no_voice_away(tmp_path, kind):
    if kind == "file":
        ours = os.open(tmp_path / "err", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        theirs = os.dup(ours)
    elif kind == "pipe":
        ours, theirs = os.pipe()
    else:
        ours, theirs = (end.detach() for end in socket.socketpair())
    program = """
        with dog() as one:
            looks(one)
            taken = os.path.exists("/proc/self/fd/0")
            null = os.open("/dev/null", os.O_RDWR)
            if null:
                os.dup2(null, 0)
            one._actions.urgent("heard")
        say(taken=taken)
    """
    said = run_in("<&-", tmp_path, program, theirs)
    os.close(theirs)
    if kind == "file":
        os.lseek(ours, 0, os.SEEK_SET)
    text = os.read(ours, 65536).decode()
    os.close(ours)

    assert said == {"taken": False}
    assert "heard" in text


def test_a_program_with_no_number_left_gets_its_standard_three_back_as_they_were(tmp_path):
    program = """
        import resource
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        kept = []
        while (fd := os.open("/dev/null", os.O_RDONLY)) <= highest + 2:
            kept.append(fd)
        os.close(fd)
        os.close(0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 2, highest + 2))
        why = ""
        try:
            pulse.Pulse.shared()
        except OSError as error:
            why = error.strerror
        say(why=why, open=os.path.exists("/proc/self/fd/0"))
    """
    said, _ = run(tmp_path, program)

    assert said == {"why": "Too many open files", "open": False}


@pytest.mark.parametrize("looked", ["", "looks(one)"])
@pytest.mark.parametrize("kind", ["file", "null"])
def test_a_log_that_the_host_opens_anew_is_not_taken_for_our_way_to_it(tmp_path, kind, looked):
    # What stderr leads to is the same file: only the descriptors are others.
    path = "/dev/null" if kind == "null" else str(tmp_path / "log")
    theirs = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    program = f"""
        one = dog()
        one.start()
        looks(one)
        os.closerange(3, 256)
        log = [os.open("{path}", os.O_WRONLY | os.O_APPEND) for _ in range(12)]
        {looked}
        one.stop()
        say(lost=[fd for fd in log if not os.path.exists(f"/proc/self/fd/{{fd}}")])
    """
    said = run_in("", tmp_path, program, theirs)
    os.close(theirs)

    assert said == {"lost": []}


def test_what_is_lost_with_its_descriptor_is_said_once(tmp_path):
    said, log = run(
        tmp_path,
        """
        with dog() as one:
            looks(one)
            os.closerange(3, 256)
            looks(one, 5)
            limits = one.deputies.limits()
        say(limits=limits, off=[*one.fail.off])
        """,
    )

    assert said == {"limits": "the host has closed its descriptor", "off": []}
    assert [log.count(f"part={part}") for part in ("backstop", "pulse", "sentinel")] == [1, 1, 0]


def test_a_sentinel_that_is_missed_once_nothing_is_open_has_nobody_speak(tmp_path):
    said, log = run(
        tmp_path,
        """
        with dog(poll_interval=0.01, sentinel=True) as one:
            while not one.deputies._sentinel:
                looks(one)
            os.closerange(3, 256)
            looks(one)
            os.kill(one.deputies._sentinel, signal.SIGKILL)
            while one.deputies._expected is not None:
                looks(one)
            looks(one)
        say(off=[*one.fail.off])
        """,
    )

    assert said == {"off": []}
    assert "the sentinel has ended; the host has closed its descriptor" in log


BECOMING = {
    "user": "os.setgid(65534); os.setuid(65534)",
    "root": "os.mkdir(sys.argv[1] + '/root'); os.chroot(sys.argv[1] + '/root')",
}


@pytest.mark.parametrize("what", BECOMING)
def test_a_sentinel_that_may_not_be_asked_any_more_is_not_said_to_have_ended(tmp_path, what):
    if os.geteuid() != 0:
        pytest.skip("only root can become another user, or leave its root")
    said, log = run(
        tmp_path,
        f"""
        with dog(poll_interval=0.01, sentinel=True) as one:
            while not one.deputies._sentinel:
                looks(one)
            {BECOMING[what]}
            looks(one, 60)
            expected = one.deputies._expected is not None
            armed = one.deputies.backstop._target
        say(expected=expected, armed=armed)
        """,
    )

    assert said == {"expected": True, "armed": -1}
    assert "event=part_off" not in log


def test_a_timer_that_may_not_open_standard_error_says_that(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    said, _ = run(
        tmp_path,
        """
        one = dog()
        os.setgid(65534)
        os.setuid(65534)
        with one:
            looks(one)
            limits = one.deputies.limits()
        say(limits=limits)
        """,
    )

    assert said["limits"].endswith(": Permission denied")


def test_without_a_sentinel_and_a_timer_it_is_not_said_that_one_speaks(tmp_path):
    program = """
        sys.executable = ""
        with dog(sentinel=True) as one:
            looks(one)
        say()
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        run_in("", tmp_path, program, theirs.fileno())
        log = ours.recv(65536).decode()

    assert log.count("part=sentinel") == log.count("part=backstop") == 1
    assert log.count("its writer may have to wait (a socket)") == 2
    assert "speaks for itself" not in log


def test_a_file_that_takes_the_place_of_our_memory_this_very_moment_is_not_cut_off(tmp_path):
    said, _ = run(
        tmp_path,
        """
        with dog() as one:
            looks(one)
            backstop_of_one = one.deputies.backstop
            number, mine = backstop_of_one.file, []

            def start():
                if not mine:
                    os.closerange(3, 256)
                    while not mine or mine[-1] < number:
                        mine.append(os.open(sys.argv[1] + "/mine", os.O_RDWR | os.O_CREAT))
                    os.ftruncate(mine[-1], 2 << 20)

            backstop_of_one._start = start
            looks(one)
            size = os.stat(sys.argv[1] + "/mine").st_size
        say(size=size)
        """,
    )

    assert said == {"size": 2 << 20}
