"""The demo itself, run in the environment that demo.py has made."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.e2e.airflow_home import HOOK, AirflowHome
from tests.e2e.events import read_events
from tests.e2e.scheduler import Scheduler
from tests.fakes.kube_api import Fault, KubeApi

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from rich.status import Status

TASKS = 10
BEFORE = 3
SETTINGS: dict[str, object] = {
    "core.dags_folder": Path(__file__).with_name("demo_dags"),
    "kubernetes_executor.worker_pods_creation_batch_size": 1,
    "watchdog_hook.poll_interval": 0.5,
    "watchdog_hook.sample_after": 2,
    "watchdog_hook.dump_after": 6,
    "watchdog_hook.interrupt_after": 10,
}
PATIENCE = 45
LINES_OF_A_DUMP = 24
STYLES = {"dump": "red", "interrupt": "bold red", "stall_began": "yellow", "requeued": "cyan"}


def show(arguments: argparse.Namespace) -> int:
    """Run it from beginning to end. 0 only if the scheduler really came back by itself."""
    console = Console(highlight=False)
    with ExitStack() as cleanup:
        try:
            return _Demo(arguments, console, cleanup).run()
        except KeyboardInterrupt:
            console.print("\ninterrupted; everything that was started is ended", style="yellow")
            return 130


class _Demo:
    def __init__(self, arguments: argparse.Namespace, console: Console, cleanup: ExitStack) -> None:
        self.arguments = arguments
        self.console = console
        self.api = cleanup.enter_context(KubeApi())
        folder = Path(tempfile.mkdtemp(prefix="demo-"))
        if arguments.keep:
            cleanup.callback(console.print, f"kept: {folder}")
        else:
            cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        settings = {**SETTINGS, "kubernetes_executor.config_file": self.api.kubeconfig}
        hook = "" if arguments.without_hook else HOOK
        self.home = AirflowHome(folder / "airflow", settings, local_settings=hook)
        cleanup.callback(self.home.close)
        self.cleanup = cleanup
        self.shown = 0

    def run(self) -> int:
        with self.console.status("Airflow makes its database") as status:
            self.home.prepare()
            status.update("the scheduler starts")
            self.scheduler = Scheduler(self.home)
            self.cleanup.callback(self.scheduler.close)
            self.home.database.release("demo")
            self._need(lambda: self._pods() >= BEFORE, status, "the executor creates pods")
            trap = self.api.set_fault(Fault.APPLIED, on="create", times=1)
            self._need(lambda: trap.hits, status, "the API server is about to fall silent")
            silent_since = time.monotonic()
            self._say(
                f"{self._pods() - 1} pods are there. The API server has just created one more and "
                "will never answer. Nothing tells the scheduler so."
            )
            recovered = self._until(self._is_back, status, "the scheduler waits for an answer")
            frozen_for = time.monotonic() - silent_since
        return self._sum_up(recovered, self._stall() or frozen_for)

    def _is_back(self) -> bool:
        """Tell whether every pod is there, and the scheduler knows it of the silent one as well."""
        settled = self.scheduler.events("created_already")
        return bool(self._pods() >= TASKS and settled and self._stall() is not None)

    def _need(self, condition: Callable[[], object], status: Status, what: str) -> None:
        if not self._until(condition, status, what):
            raise SystemExit(f"in vain: {what}\n{self.scheduler.tail()}")

    def _until(self, condition: Callable[[], object], status: Status, what: str) -> bool:
        begun = time.monotonic()
        while not condition():
            waited = time.monotonic() - begun
            if waited > PATIENCE:
                return False
            if not self.scheduler.is_same():
                raise SystemExit(f"the scheduler ended\n{self.scheduler.tail()}")
            status.update(f"{what}: {waited:.0f} s, {self._pods()} of {TASKS} pods")
            self._show_log()
            time.sleep(0.1)
        self._show_log()
        return True

    def _pods(self) -> int:
        return len(self.api.created())

    def _stall(self) -> float | None:
        ended = self.scheduler.events("stall_ended")
        return float(ended[0].facts["silent_s"]) if ended else None

    def _say(self, text: str) -> None:
        self.console.print(f"\n[bold]{text}[/bold]\n")

    def _show_log(self) -> None:
        """Print what is new in the scheduler's log and ours in it: whole lines only."""
        fresh = self.scheduler.text(self.shown)
        fresh = fresh[: fresh.rfind("\n") + 1]
        self.shown += len(fresh.encode())
        ours = 0
        for line in fresh.splitlines():
            event = next(read_events(f"{line}\n"), None)
            style = STYLES.get(event.name, "green") if event else "dim"
            ours = 1 if event else ours + 1 if ours and line.startswith(" ") else 0
            if self.arguments.all or event or 0 < ours <= LINES_OF_A_DUMP:
                self.console.print(escape(line), style=style, soft_wrap=True)
            elif ours == LINES_OF_A_DUMP + 1:
                self.console.print("   … the whole dump is in its folder", style="dim")

    def _sum_up(self, recovered: bool, stalled: float) -> int:
        counts = self.api.per_try()
        failed = self.home.database.task_states()["failed"]
        one_each = len(counts) == TASKS and set(counts.values()) == {1}
        same = self.scheduler.is_same()
        good = recovered and one_each and not failed and same
        table = Table(title="It came back" if good else "It is still frozen", show_header=False)
        table.add_row(
            "stalled for", f"{stalled:.1f} s" if good else f"{stalled:.0f} s, and still is"
        )
        table.add_row("pods created", f"{sum(counts.values())} for {TASKS} tasks")
        table.add_row("pods per task", "one" if one_each else str(sorted(counts.values())))
        table.add_row("failed tasks", str(failed))
        table.add_row("scheduler", f"pid {self.scheduler.pid}" + ", never restarted" * same)
        self.console.print(table)
        return 0 if good else 1
