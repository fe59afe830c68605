"""
Record what diagnosis is given of a process that is really stuck: `python tests/victims/record.py [CASE …]`.

Each case runs as a process of its own, and becomes tests/stacks/CASE.json; `--list` names them all. Run by hand,
as root on Linux (namespaces, mounts and cgroups are made), by a Python that has what the cases use:

    pip install apache-airflow==3.3.2 apache-airflow-providers-cncf-kubernetes==10.25.0 psycopg2-binary \\
        redis celery requests trustme pytest psutil wrapt

and a PostgreSQL beside it. `--beside sqlalchemy-1.4` adds that to the names, for a second set of versions.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
STACKS = ROOT / "tests" / "stacks"
FLAT = re.compile(r'[{\[]\n[^{}\[\]"]*(?:"(?:\\.|[^"\\])*"[^{}\[\]"]*)*[}\]]')
SAID = 400  # last characters of what a case said that could not be recorded
LARGE = 30_000  # characters of a recording
PATIENCE = 120  # seconds for one case

sys.path.insert(0, str(ROOT))

from tests.victims import cases  # noqa: E402
from tests.victims.scrub import Scrub  # noqa: E402
from tests.victims.stage import CASES  # noqa: E402


def record(name: str, to: Path) -> bool:
    """Run one case and write its recording; say what was found."""
    with tempfile.TemporaryDirectory(prefix="victim-", ignore_cleanup_errors=True) as folder:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "AIRFLOW_HOME": f"{folder}/airflow",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db",
        }
        command = [sys.executable, "-m", "tests.victims.stuck", name, folder]
        spoken = Path(folder, "output.txt")
        with spoken.open("wb") as output:
            # A file: its children have it open, too, and a pipe would end with the last of them.
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                start_new_session=True,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            with contextlib.suppress(ProcessLookupError):  # its children, some of them stopped
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        found = Path(folder, "case.json")
        if not found.exists():
            said = spoken.read_text(errors="replace")[-SAID:]
            print(f"{name}: NOT RECORDED\n{said}", flush=True)
            return False
        print(f"{name} -> {Path(folder, 'said.txt').read_text(encoding='utf-8')}\n", flush=True)
        plain = Scrub(folder).of(json.loads(found.read_text(encoding="utf-8")))
    text = as_text(plain)
    if len(text) > LARGE:
        # Of a sample rules look at the innermost frame and the numbers.
        for sample in plain["snapshot"].get("samples", []):
            sample["frames"] = sample["frames"][:1]
            sample.get("kernel", {}).pop("wait", None)
        text = as_text(plain)
    for mark in (socket.gethostname(), str(ROOT), f"{tempfile.gettempdir()}/", f"{Path.home()}/"):
        if mark in text:
            at = text.index(mark)
            print(f"{name}: {mark} in …{text[max(0, at - 80) : at + 80]}…")
            return False
    to.write_text(text, encoding="utf-8")
    return True


def as_text(plain: object) -> str:
    """Return a recording as its file has it: what has no parts of its own on one line."""
    text = json.dumps(plain, indent=1, ensure_ascii=False)
    return FLAT.sub(lambda found: " ".join(map(str.strip, found[0].splitlines())), text) + "\n"


def main() -> int:
    """Record the cases that are named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("case", nargs="*")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--beside", help="added to the name of the recording")
    chosen = parser.parse_args()
    cases.load()
    if chosen.list:
        print(*CASES, sep="\n")
        return 0
    missed = []
    for name in chosen.case or CASES:
        beside = f"--{chosen.beside}" if chosen.beside else ""
        if not record(name, STACKS / f"{name}{beside}.json"):
            missed.append(name)
    if missed:
        print("not recorded:", *missed)
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
