"""py-spy, run on a process that can say nothing itself any more. Only here, and for `watchdog-hook dump`."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False  # as typing has it, which takes memory to import
if TYPE_CHECKING:
    from watchdog_hook.sentinel.life import Life

PATIENCE = 10.0  # seconds for all attempts
PAUSE = 0.02
MOST = 8 << 20  # bytes of its output

# Versions up to 0.4 refuse the first; the second holds the process for some 50 ms, in which it would do nothing.
ATTEMPTS = (("--nonblocking", "--native"), ("--native",), ("--nonblocking",))


def dump(program: str, life: Life) -> tuple[str, str]:
    """Return its JSON, and an empty text; or an empty text, and why there is none. Never raises."""
    pid = life.pid
    until = time.monotonic() + PATIENCE
    why = ""
    for options in ATTEMPTS:
        words = [program, "dump", *options, "--json", "--pid", str(pid)]
        try:
            code, output, errors = _run(words, until, life)
        except OSError as error:
            return "", f"{program} cannot be started ({error.strerror})"
        if code == 0 and output.lstrip().startswith("["):
            return output, ""
        if code is None and life.ends_within(0):
            return "", "the process has ended"
        if code is None:
            return "", f"py-spy did not answer within {PATIENCE:.0f} s"
        why = why if "--nonblocking option" in errors else errors
    return "", " ".join(why.split())[:300] or "py-spy failed, and said nothing"


def _run(words: list[str], until: float, life: Life) -> tuple[int | None, str, str]:
    """
    Run a program to its end, its output in memory.

    The code is None where it was ended for its time, or with the process that it looks at.
    """
    import signal

    # Whoever started the scheduler may ignore it, and so do we then: no child of ours would have an end.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output, errors = os.memfd_create("output"), os.memfd_create("errors")
    try:
        pid = os.posix_spawn(
            words[0],
            words,
            {"PATH": os.defpath},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, errors, 2),
            ],
            setpgroup=0,
        )
        code = _wait(pid, until, life)
        return code, _content(output), _content(errors)
    finally:
        os.close(output)
        os.close(errors)


def _wait(pid: int, until: float, life: Life) -> int | None:
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if life.ends_within(PAUSE) or time.monotonic() > until:
            break
    # Its children too: it may be a script. A traced process goes on by itself when its tracer is gone.
    os.killpg(pid, 9)
    until = time.monotonic() + 1
    while not os.waitpid(pid, os.WNOHANG)[0] and time.monotonic() < until:
        time.sleep(PAUSE)
    return None


def _content(fd: int) -> str:
    return os.pread(fd, MOST, 0).decode("utf-8", "replace")
