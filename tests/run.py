#!/usr/bin/env python3
"""
Run the tests on a machine that has only Python and what apt gives.

Makes an environment of its own with tox and uv, finds the interpreters that are here, installs
PostgreSQL and Chromium where they are missing, runs tox's environments, and closes with what ran,
what failed and what was missing. Nothing is skipped in silence.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import glob
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".venv-tests"
LOGS = ROOT / ".tox" / "log"
TOOLS = ("uv>=0.5", "tox>=4.25", "tox-uv>=1.20")
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
# What each Airflow supports, the one that most people run it with first.
AIRFLOWS = {"airflow211": ("3.11", "3.12", "3.10"), "airflow33": ("3.12", "3.13", "3.11", "3.10")}
COVERAGE = ("3.12", "3.13", "3.10")
OLD = {
    "airflow273": ("3.11",),
    "airflow293": ("3.11",),
    "airflow306": ("3.12", "3.11"),
    "airflow318": ("3.12", "3.11"),
}
GROUPS = ("lint", "types", "unit", "long", "browser", "e2e", "coverage", "old")
NEED_POSTGRES = ("airflow",)
NEED_CHROMIUM = ("browser",)
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LONGEST = 80 * 60  # seconds for one environment
LEAVING = 10.0  # seconds for what the last test started to end
KINDS = ("passed", "failed", "error", "skipped")
COUNTED = re.compile(rf"(\d+) ({'|'.join(KINDS)})s?\b")
CLOSING = re.compile(r"\d+ \w+(, \d+ \w+)* in [\d.]+s( \([\d:]+\))?")


def tests(environment: str) -> bool:
    """Tell whether pytest runs in this environment."""
    return environment not in ("lint", "types")


@dataclass
class Result:
    """How one tox environment went."""

    environment: str
    code: int
    seconds: float
    counts: dict[str, int]
    closing: str

    @property
    def good(self) -> bool:
        return self.code == 0 and (not tests(self.environment) or self.counts.get("passed", 0) > 0)


def main() -> int:
    options = parse()
    if sys.version_info < (3, 10):  # noqa: UP036 - whoever starts this may have any Python 3
        return refuse(f"Python 3.10 or newer is needed, this is {sys.version.split()[0]}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    started = time.monotonic()
    pythons = interpreters()
    missing = [
        f"Python {version}: not found here" for version in VERSIONS if version not in pythons
    ]
    if not set(COVERAGE) & set(pythons):
        missing.append(f"coverage: needs one of Python {', '.join(COVERAGE)}")
    try:
        phases = plan(options, pythons)
        if options.list:
            print("\n".join(name for phase in phases for name in phase))
            return 0
        tools = toolbox()
        environment = surroundings(tools, pythons)
        if any(need in name for need in NEED_POSTGRES for phase in phases for name in phase):
            environment["PATH"] += os.pathsep + str(postgres())
        if any(name in NEED_CHROMIUM for phase in phases for name in phase):
            chromium()
        wheel = build(tools, environment)
    except Missing as error:
        return refuse(str(error))
    print(
        f"Python {', '.join(pythons)}; each environment's output is in {LOGS.relative_to(ROOT)}/",
        flush=True,
    )
    results = []
    with Runner(tools, environment, wheel, options) as runner:
        for phase in phases:
            results += runner.run(phase)
    return close(results, missing, time.monotonic() - started, left_over(ROOT))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Run the tests: style, types, units on every Python here, the page in a browser, and real"
        " Airflow schedulers.",
        epilog="What follows -- goes to pytest: python3 tests/run.py py312-unit -- -k breaker",
    )
    parser.add_argument(
        "environments",
        nargs="*",
        metavar="ENVIRONMENT",
        help="tox environments, or lint, types, unit, long, browser, e2e, coverage, old; without any, all but old",
    )
    parser.add_argument("--jobs", type=int, default=2, help="environments at a time (%(default)s)")
    parser.add_argument("--list", action="store_true", help="name the environments and stop")
    parser.add_argument("--live", action="store_true", help="show the output as it comes")
    arguments, pytest = sys.argv[1:], []
    if "--" in arguments:
        cut = arguments.index("--")
        arguments, pytest = arguments[:cut], arguments[cut + 1 :]
    options = parser.parse_args(arguments)
    options.pytest = pytest
    return options


class Missing(Exception):
    """Something is not here that the tests cannot do without."""


def refuse(why: str) -> int:
    print(f"tests/run.py: {why}", file=sys.stderr)
    return 2


def interpreters() -> dict[str, str]:
    """Return the interpreters of this machine by version. A pyenv shim counts only if it runs."""
    pyenv = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    found = {}
    for version in VERSIONS:
        candidates = [shutil.which(f"python{version}") or ""]
        candidates += sorted(
            glob.glob(f"{pyenv}/versions/{version}.*/bin/python{version}"), reverse=True
        )
        if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
            candidates.insert(0, getattr(sys, "_base_executable", None) or sys.executable)
        for candidate in filter(None, candidates):
            asked = "import sys, venv; print('%d.%d' % sys.version_info[:2], sys.executable)"
            answer = subprocess.run(
                [candidate, "-c", asked], capture_output=True, text=True, check=False
            )
            if answer.returncode == 0 and answer.stdout.split()[:1] == [version]:
                found[version] = answer.stdout.split(maxsplit=1)[1].strip()
                break
    return found


def plan(options: argparse.Namespace, pythons: dict[str, str]) -> list[list[str]]:
    """Return the environments to run: those of a phase side by side, one phase after the other."""
    asked = options.environments or [*GROUPS[:-1]]
    short = [version.replace(".", "") for version in reversed(VERSIONS) if version in pythons]
    groups = {
        "lint": ["lint"],
        "types": ["types"],
        "unit": [f"py{version}-unit" for version in short],
        "long": [f"py{version}-long" for version in short],
        "browser": ["browser"] if pythons else [],
        "e2e": [
            f"py{best(name, AIRFLOWS, pythons)}-{name}-e2e" for name in AIRFLOWS if "e2e" in asked
        ],
        "coverage": ["coverage"] if set(COVERAGE) & set(pythons) else [],
        "old": [name for name in OLD if "old" in asked and best(name, OLD, pythons)],
    }
    named = [name for name in asked if name not in GROUPS]
    phases = [
        [name for group in phase if group in asked for name in groups[group]]
        for phase in (("lint", "types", "unit", "coverage"), ("long", "browser"), ("e2e", "old"))
    ]
    return [phase for phase in [*phases, named] if phase]


def best(name: str, table: dict[str, tuple[str, ...]], pythons: dict[str, str]) -> str:
    for version in table[name]:
        if version in pythons:
            return version.replace(".", "")
    raise Missing(
        f"{name} needs one of Python {', '.join(table[name])}, and none is here: install one"
    )


def toolbox() -> Path:
    """Return the directory of tox and uv, made once."""
    bin_dir = HOME / "bin"
    stamp = HOME / "made-of"
    recipe = hashlib.sha256(repr((TOOLS, sys.version)).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == recipe:
        return bin_dir
    print(f"making {HOME.name} with {', '.join(TOOLS)}", flush=True)
    if not (with_own_pip() or with_pip_of_this()):
        apt("python3-venv", "this Python can make no virtual environment")
        if not with_own_pip():
            raise Missing("pip could not install " + ", ".join(TOOLS))
    stamp.write_text(recipe)
    return bin_dir


def with_own_pip() -> bool:
    """Make the toolbox as every Python can that is whole."""
    python = str(HOME / "bin" / "python")
    return quietly(sys.executable, "-m", "venv", "--clear", str(HOME)) and quietly(
        python, "-m", "pip", "install", *TOOLS
    )


def with_pip_of_this() -> bool:
    """Make the toolbox as Debian's Python can without its package python3-venv."""
    python = str(HOME / "bin" / "python")
    return quietly(sys.executable, "-m", "venv", "--clear", "--without-pip", str(HOME)) and quietly(
        sys.executable, "-m", "pip", "--python", python, "install", *TOOLS
    )


def quietly(*command: str) -> bool:
    """Run a command, and show what it said only if it failed."""
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        print(
            f"{' '.join(command[1:4])}:", *(done.stdout + done.stderr).splitlines()[-3:], sep="\n  "
        )
    return done.returncode == 0


def surroundings(tools: Path, pythons: dict[str, str]) -> dict[str, str]:
    """Return the environment of tox: it finds the interpreters that we found, and downloads none."""
    # Not beneath a virtual environment: its pyvenv.cfg would make each of them one.
    links = ROOT / ".tox" / "interpreters"
    shutil.rmtree(links, ignore_errors=True)
    links.mkdir(parents=True)
    for version, path in pythons.items():
        (links / f"python{version}").symlink_to(path)
    return {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("TOX_", "VIRTUAL_ENV"))
        },
        "PATH": os.pathsep.join([str(links), str(tools), os.environ.get("PATH", os.defpath)]),
        "UV_PYTHON_PREFERENCE": "only-system",
        "UV_PYTHON_DOWNLOADS": "never",
        "NO_COLOR": "1",
    }


def postgres() -> Path:
    """Return the directory of PostgreSQL's programs; install them if they are missing."""
    for _ in range(2):
        found = shutil.which("initdb") or max(
            glob.glob("/usr/lib/postgresql/*/bin/initdb"), default=None
        )
        if found:
            return Path(found).parent
        apt(
            "postgresql", "PostgreSQL is missing, and Airflow 2 needs it for the KubernetesExecutor"
        )
    raise Missing("PostgreSQL was installed, but there is no initdb in /usr/lib/postgresql/*/bin")


def chromium() -> None:
    """See to it that Chromium is here; install it if it is missing."""
    for _ in range(2):
        if any(map(shutil.which, CHROMIUM)):
            return
        apt("chromium", "Chromium is missing, and the tests of the page drive one")
    raise Missing(f"Chromium was installed, but there is none of {', '.join(CHROMIUM)} on PATH")


def apt(package: str, why: str) -> None:
    """Install a Debian package, or say how."""
    become = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if shutil.which("apt-get") is None or (become and shutil.which("sudo") is None):
        raise Missing(f"{why}: install {package}")
    print(f"{why}: installing {package}", flush=True)
    get = [*become, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    quietly(*get, "update")
    if not quietly(*get, "install", "--yes", "--no-install-recommends", package):
        raise Missing(f"{why}, and apt-get could not install {package}: do it by hand")


def build(tools: Path, environment: dict[str, str]) -> Path:
    """Build the wheel once, from the source archive as a user's pip would; every environment installs it."""
    out = ROOT / ".tox" / "wheel"
    shutil.rmtree(out, ignore_errors=True)
    command = [
        str(tools / "uv"),
        "build",
        "--quiet",
        "--python",
        sys.executable,
        "--out-dir",
        str(out),
    ]
    if subprocess.run([*command, str(ROOT)], env=environment, check=False).returncode:
        raise Missing("the wheel cannot be built")
    return next(out.glob("*.whl"))


class Runner:
    """Runs tox environments side by side, each in a process group of its own that never outlives us."""

    def __init__(
        self, tools: Path, environment: dict[str, str], wheel: Path, options: argparse.Namespace
    ) -> None:
        self._tox = [
            str(tools / "tox"),
            "run",
            "--skip-missing-interpreters",
            "false",
            "--installpkg",
            str(wheel),
        ]
        self._environment = environment
        self._options = options
        self._running: set[subprocess.Popen[str]] = set()
        LOGS.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        for process in list(self._running):
            _end(process)

    def run(self, environments: list[str]) -> list[Result]:
        with concurrent.futures.ThreadPoolExecutor(max(1, self._options.jobs)) as pool:
            try:
                return list(pool.map(self._run, environments))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.__exit__()
                raise

    def _run(self, name: str) -> Result:
        command = [
            *self._tox,
            "-e",
            name,
            *(["--", *self._options.pytest] if self._options.pytest and tests(name) else []),
        ]
        print(f"{name}: begins", flush=True)
        began = time.monotonic()
        lines = []
        with (
            (LOGS / f"{name}.txt").open("w") as log,
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            ) as process,
        ):
            self._running.add(process)
            limit = threading.Timer(LONGEST, _end, [process])
            limit.start()
            for line in process.stdout or ():
                log.write(line)
                log.flush()
                lines.append(line)
                if self._options.live:
                    print(f"{name}: {line}", end="", flush=True)
            code = process.wait()
            limit.cancel()
            self._running.discard(process)
        result = Result(name, code, time.monotonic() - began, *counted(lines))
        print(
            f"{name}: {verdict(result)} after {result.seconds:.0f} s {result.closing}", flush=True
        )
        if not result.good and not self._options.live:
            print("".join(f"{name}: {line}" for line in lines[-400:]), flush=True)
        return result


def _end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        os.killpg(process.pid, signal.SIGKILL)


def counted(lines: list[str]) -> tuple[dict[str, int], str]:
    """Return the sum of what pytest counted, and its closing lines."""
    sums: dict[str, int] = {}
    closings = []
    for line in lines:
        text = line.strip("= \n")
        if CLOSING.fullmatch(text):
            closings.append(text)
            for number, what in COUNTED.findall(text):
                sums[what] = sums.get(what, 0) + int(number)
    return sums, "; ".join(closings)


def verdict(result: Result) -> str:
    return "passed" if result.good else "FAILED" if result.code else "FAILED (no test ran)"


def left_over(root: Path, patience: float = LEAVING) -> list[str]:
    """
    Return the sentinels and the watched processes of this checkout that still run, after some patience.

    A sentinel is known by its program; a watched process by the memory it shares with its sentinel.
    """
    until = time.monotonic() + patience
    while True:
        found = [text for folder in glob.glob("/proc/[0-9]*") if (text := ours(folder, root))]
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.1)


def ours(folder: str, root: Path) -> str | None:
    """Return a process as text if it is a sentinel or a watched process of this checkout."""
    try:
        words = Path(folder, "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:  # gone, or somebody else's
        return None
    files = []
    for each in glob.glob(f"{folder}/fd/*"):
        with contextlib.suppress(OSError):  # closed meanwhile
            files.append(os.readlink(each))
    sentinel = any(word.endswith("watchdog_hook/sentinel/__main__.py") for word in words)
    watched = any(file.startswith("/memfd:watchdog_hook") for file in files)
    if (sentinel or watched) and any(word.startswith(f"{root}/") for word in words):
        return f"{os.path.basename(folder)} ({' '.join(words).strip()[:200]})"
    return None


def close(
    results: list[Result], missing: list[str], seconds: float, left: Sequence[str] = ()
) -> int:
    """Say how it went: each environment, what was missing, and the sum of the tests."""
    print(f"\n{'environment':<24} {'result':<8} {'time':>6}  tests")
    for result in results:
        print(
            f"{result.environment:<24} {verdict(result):<8} {result.seconds:>4.0f} s  {result.closing}"
        )
    for what in missing:
        print(f"not run: {what}")
    bad = [result.environment for result in results if not result.good]
    for process in left:
        print(f"still running: {process}")
    outcome = f"failed: {', '.join(bad)}" if bad else "all passed"
    print(f"{outcome}{', but not all ended' if left else ''}, in {seconds / 60:.1f} minutes")
    total = [sum(result.counts.get(what, 0) for result in results) for what in KINDS]
    print(f"tests: {total[0]} passed, {total[1] + total[2]} failed, {total[3]} skipped")
    return 1 if bad or left else 0


if __name__ == "__main__":
    sys.exit(main())
