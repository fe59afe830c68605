"""The DAG processor's loop: in a process of its own, or in Airflow 2 in a child of the scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from watchdog_hook.integrations.airflow import arming

if TYPE_CHECKING:
    from watchdog_hook.integrations.airflow.arming import Armed
    from watchdog_hook.integrations.patch import Patches
    from watchdog_hook.watchdog import Watchdog

COMPONENT = "dag_processor"
BEAT = "heartbeat"  # an attribute of the manager, called once per turn, in every version from 2.7 to 3.3

# Methods of the manager, for the phase's name alone.
PHASES = (
    "_kill_timed_out_processors",
    "_scan_stale_dags",
    "_fetch_callbacks",
    # 3.x
    "prepare_bundles",
    "sync_bundles",
    "load_dag_bundles",
    "_queue_requested_files_for_parsing",
    "_refresh_dag_bundles",
    "_find_files_in_bundle",
    "deactivate_deleted_dags",
    "clear_orphaned_import_errors",
    "prepare_file_queue",
    "_start_new_processes",
    "_service_processor_sockets",
    "_collect_results",
    "persist_parsing_result",
    "fetch_callbacks",
    "_cleanup_stale_bundle_versions",
    "purge_inactive_dag_warnings",
    "print_stats",
    # 2.x
    "_refresh_dag_dir",
    "clear_nonexistent_import_errors",
    "prepare_file_path_queue",
    "_refresh_requested_filelocs",
    "start_new_processes",
    "_collect_results_from_processor",
    "collect_results",
    "emit_metrics",
    "_print_stat",
)
ENDS = ("terminate", "end")  # they wait for the processes that parse


def arm(runner: Any) -> Armed | None:
    """Watch the loop of `airflow dag-processor`. None where that is not wanted."""
    return _arm(runner.processor, runner)


def arm_child(manager: Any) -> Armed | None:
    """Watch the loop of the scheduler's child, in that child. None where that is not wanted, or it is none."""
    if getattr(manager, "_direct_scheduler_conn", None) is None:
        return None  # in a process of its own: watched already
    return _arm(manager, None)


def _arm(manager: Any, runner: Any) -> Armed | None:
    config = arming.config_for(COMPONENT)
    if config is None:
        return None
    if not getattr(manager, "_async_mode", True):
        # Each of its turns then waits for a turn of the scheduler: its silence says nothing.
        arming.say_not_armed(COMPONENT, "with SQLite, Airflow 2 has it wait for the scheduler")
        return None
    from watchdog_hook.integrations.airflow.host import AirflowHost

    host = AirflowHost(runner, [], COMPONENT)

    def patch(dog: Watchdog, patches: Patches) -> str | None:
        if not patches.wrap_own(manager, BEAT, arming.turn(dog, BEAT)):
            return f"this Airflow's DAG processor has no {BEAT}"
        for name in PHASES:
            patches.wrap(type(manager), name, arming.phase(dog, name.strip("_")))
        for name in ENDS:
            patches.wrap(type(manager), name, arming.end(dog))
        arming.forget_with(dog, patches, host)
        return None

    return arming.begin(config, host, patch)
