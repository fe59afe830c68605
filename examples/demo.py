#!/usr/bin/env python3
"""
See a real Airflow scheduler freeze, and come back.

Starts Airflow 3 with the KubernetesExecutor on SQLite against a small HTTPS Kubernetes API of ours.
While the executor creates pods, that API creates one and never answers. Without help the scheduler
would wait for ever; here watchdog_hook notices, says what is stuck, ends the call and puts the task
back on the queue. Needs Python 3.10 or newer with pip; what else it needs goes into .demo-venv beside
the checkout, the first time only. Takes about a minute after that.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
REQUIREMENTS = [
    "apache-airflow==3.3.2",
    "apache-airflow-providers-cncf-kubernetes==10.25.0",
    "trustme",
    "rich",
]
EXPECTED = 150  # packages, roughly: only the progress line reads it


def main() -> int:
    """Make the environment if need be, and go on in there."""
    arguments = parse_arguments()
    home = Path(arguments.venv).resolve()
    python = home / "bin" / "python"
    if Path(sys.prefix) != home:
        try:
            make_environment(home, python)
        except KeyboardInterrupt:
            print(
                "\ndemo: interrupted; the next run starts the installation again", file=sys.stderr
            )
            return 130
        except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
            print(f"\ndemo: {error}", file=sys.stderr)
            return 1
        os.execv(python, [str(python), str(Path(__file__).resolve()), *sys.argv[1:]])
    sys.path.insert(0, str(CHECKOUT))
    from demo_show import show

    return show(arguments)


def parse_arguments() -> argparse.Namespace:
    """Read the command line; here, so that --help answers before anything is installed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--without-hook", action="store_true", help="see it stay frozen instead; exit code 1"
    )
    parser.add_argument(
        "--all", action="store_true", help="show every line of the scheduler's log, not ours alone"
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep AIRFLOW_HOME, to look around in it"
    )
    parser.add_argument(
        "--venv",
        metavar="FOLDER",
        default=CHECKOUT / ".demo-venv",
        help="where Airflow is installed (default: .demo-venv in the checkout)",
    )
    return parser.parse_args()


def make_environment(home: Path, python: Path) -> None:
    """Install Airflow and this checkout into a virtual environment, unless they are there."""
    wanted = hashlib.sha256("\n".join([*REQUIREMENTS, str(CHECKOUT)]).encode()).hexdigest()
    stamp = home / "demo-installed"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted and python.exists():
        return
    print(f"Installing Airflow 3.3.2 into {home} (the first time only)", flush=True)
    create_environment(home, python)
    pip(python, "--editable", str(CHECKOUT), *REQUIREMENTS)
    stamp.write_text(wanted, encoding="utf-8")


def create_environment(home: Path, python: Path) -> None:
    """Make an empty environment with pip in it."""
    shutil.rmtree(home, ignore_errors=True)
    try:
        import venv

        venv.create(home, with_pip=True)
        return
    except (ImportError, subprocess.CalledProcessError):
        # Debian keeps what venv needs for pip in a package of its own, python3-venv.
        print("venv has no pip to give here; taking virtualenv", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        pip(Path(sys.executable), "--target", folder, "virtualenv")
        environment = {**os.environ, "PYTHONPATH": folder}
        command = [sys.executable, "-m", "virtualenv", "--quiet", str(home)]
        subprocess.run(command, env=environment, check=True)


def pip(python: Path, *words: str) -> None:
    """Install, with a line that shows how far it is; RuntimeError with pip's last words if it fails."""
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", *words]
    begun, collected, last = time.monotonic(), 0, ""
    lines: list[str] = []
    with subprocess.Popen(
        [*command, "--progress-bar=off"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout or ():
            lines.append(line)
            if line.startswith("Collecting"):
                collected += 1
                last = line.split()[1]
            elif line.startswith("Installing collected"):
                last = "unpacking"
            progress(min(0.9, collected / EXPECTED), time.monotonic() - begun, last)
    progress(1.0, time.monotonic() - begun, "done")
    print(flush=True)
    if process.returncode:
        raise RuntimeError(f"pip could not install {' '.join(words)}:\n{''.join(lines[-15:])}")


def progress(share: float, seconds: float, what: str) -> None:
    """Draw one line over the last."""
    if sys.stdout.isatty():
        bar = "━" * round(30 * share)
        print(f"\r  {bar:<30} {seconds:4.0f} s  {what:<40.40}", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
