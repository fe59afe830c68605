"""Two incidents as the watchdog would have written them: one with all there can be, one of an early release."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from watchdog_hook.core import report
from watchdog_hook.core.model import (
    CallRecord,
    Deed,
    Finding,
    Frame,
    Incident,
    Sample,
    Snapshot,
    ThreadStack,
)
from watchdog_hook.core.observed import (
    Child,
    Descriptor,
    ExecutorFacts,
    Iteration,
    LockWait,
    Observed,
    ProcessFacts,
    TaskGroup,
    Tcp,
    ThreadInKernel,
    Wait,
    Watcher,
)

STDLIB = "/usr/local/lib/python3.12"
SITE = "/home/airflow/.local/lib/python3.12/site-packages"
HOST = "airflow-scheduler-7c9d8f6b5-x2lqz"
BEGAN = 1_795_391_631.5  # 2026-11-22 23:53:51.5
PHASE = "executor.heartbeat (KubernetesExecutor)"
POST = "POST /api/v1/namespaces/{namespace}/pods"
SERVER = "10.96.0.1:443"


def stack(*lines: str) -> tuple[Frame, ...]:
    """Return frames of `function file:line`, where % is the standard library and + the installed packages."""
    frames = []
    for line in lines:
        function, place = line.split(" ")
        file, number = place.rsplit(":", 1)
        file = file.replace("%", STDLIB + "/", 1).replace("+", SITE + "/", 1)
        frames.append(Frame(function, file, int(number)))
    return tuple(frames)


STARTED = stack(
    "run_job +airflow/jobs/job.py:355",
    "_run_scheduler_job +airflow/cli/commands/scheduler_command.py:48",
    "scheduler.<locals>.<lambda> +airflow/cli/commands/scheduler_command.py:71",
    "run_command_with_daemon_option +airflow/cli/commands/daemon_utils.py:86",
    "scheduler +airflow/cli/commands/scheduler_command.py:68",
    "providers_configuration_loaded.<locals>.wrapped +airflow/utils/providers_configuration_loader.py:54",
    "action_cli.<locals>.action_logging.<locals>.wrapper +airflow/utils/cli.py:114",
    "lazy_load_command.<locals>.command +airflow/cli/cli_config.py:49",
    "main +airflow/__main__.py:55",
    "<module> /home/airflow/.local/bin/airflow:8",
)
LOOP = (
    *stack(
        "SchedulerJobRunner._run_scheduler_loop +airflow/jobs/scheduler_job_runner.py:1816",
        "SchedulerJobRunner._execute +airflow/jobs/scheduler_job_runner.py:1668",
        "wrapped +watchdog_hook/integrations/airflow/scheduler.py:88",
        "execute_job +airflow/jobs/job.py:384",
        "provide_session.<locals>.wrapper +airflow/utils/session.py:100",
    ),
    *STARTED,
)
HEARTBEAT = (
    *stack(
        "BaseExecutor.heartbeat +airflow/executors/base_executor.py:364",
        "wrapped +watchdog_hook/integrations/airflow/loop.py:71",
    ),
    *LOOP,
)
SYNC = (
    *stack(
        "KubernetesExecutor.sync +airflow/providers/cncf/kubernetes/executors/kubernetes_executor.py:631",
    ),
    *HEARTBEAT,
)
CREATE = (
    *stack(
        "RESTClientObject.request +kubernetes/client/rest.py:172",
        "wrapped +watchdog_hook/integrations/kubernetes.py:121",
        "RESTClientObject.POST +kubernetes/client/rest.py:281",
        "ApiClient.request +kubernetes/client/api_client.py:391",
        "ApiClient.__call_api +kubernetes/client/api_client.py:180",
        "ApiClient.call_api +kubernetes/client/api_client.py:348",
        "CoreV1Api.create_namespaced_pod_with_http_info +kubernetes/client/api/core_v1_api.py:9044",
        "CoreV1Api.create_namespaced_pod +kubernetes/client/api/core_v1_api.py:8949",
        "AirflowKubernetesScheduler.run_pod_async"
        " +airflow/providers/cncf/kubernetes/executors/kubernetes_executor_utils.py:542",
        "AirflowKubernetesScheduler.run_next"
        " +airflow/providers/cncf/kubernetes/executors/kubernetes_executor_utils.py:676",
    ),
    *SYNC,
)
STUCK = (
    *stack(
        "SSLSocket.read %ssl.py:1105",
        "SSLSocket.recv_into %ssl.py:1249",
        "SocketIO.readinto %socket.py:720",
        "HTTPResponse._read_status %http/client.py:292",
        "HTTPResponse.begin %http/client.py:331",
        "HTTPConnection.getresponse %http/client.py:1430",
        "HTTPConnection.getresponse +urllib3/connection.py:571",
        "HTTPConnectionPool._make_request +urllib3/connectionpool.py:534",
        "HTTPConnectionPool.urlopen +urllib3/connectionpool.py:787",
        "RequestMethods.request_encode_body +urllib3/_request_methods.py:278",
        "RequestMethods.request +urllib3/_request_methods.py:143",
    ),
    *CREATE,
)
SENDING = (*stack("SSLSocket.write %ssl.py:1180", "SSLSocket.send %ssl.py:1213"), *CREATE)
HOOK = (
    *stack(
        "load_vault_defaults /opt/airflow/plugins/acme/defaults.py:57",
        "pod_mutation_hook /opt/airflow/config/airflow_local_settings.py:31",
        "PodGenerator.construct_pod +airflow/providers/cncf/kubernetes/pod_generator.py:410",
        "AirflowKubernetesScheduler.run_next"
        " +airflow/providers/cncf/kubernetes/executors/kubernetes_executor_utils.py:641",
    ),
    *SYNC,
)


def _database(*above: str) -> tuple[Frame, ...]:
    query = stack(
        "DefaultDialect.do_execute +sqlalchemy/engine/default.py:952",
        "Connection._exec_single_context +sqlalchemy/engine/base.py:1964",
        "Connection._execute_context +sqlalchemy/engine/base.py:1843",
        "Session.execute +sqlalchemy/orm/session.py:2365",
    )
    return (*query, *stack(*above), *LOOP)


SCHEDULING = (
    "SchedulerJobRunner._do_scheduling +airflow/jobs/scheduler_job_runner.py:1958",
    "wrapped +watchdog_hook/integrations/airflow/loop.py:52",
)
NORMAL = (
    (stack("sleep %threading.py:1094") + LOOP, 212),
    (
        _database(
            "SchedulerJobRunner._executable_task_instances_to_queued"
            " +airflow/jobs/scheduler_job_runner.py:642",
            "SchedulerJobRunner._critical_section_enqueue_task_instances"
            " +airflow/jobs/scheduler_job_runner.py:1170",
            *SCHEDULING,
        ),
        96,
    ),
    (
        _database(
            "DagRun.get_running_dag_runs_to_examine +airflow/models/dagrun.py:601", *SCHEDULING
        ),
        58,
    ),
    (
        _database(
            "DagRun.task_instance_scheduling_decisions +airflow/models/dagrun.py:1288",
            "DagRun.update_state +airflow/models/dagrun.py:1120",
            "SchedulerJobRunner._schedule_dag_run +airflow/jobs/scheduler_job_runner.py:2344",
            *SCHEDULING,
        ),
        141,
    ),
    (
        stack(
            "Queue.get %multiprocessing/queues.py:102", "ResourceVersion.update %threading.py:300"
        )
        + SYNC,
        37,
    ),
    (STUCK, 21),
    (SENDING, 4),
    (HOOK, 9),
    (_database("BaseJobRunner.heartbeat +airflow/jobs/base_job_runner.py:66"), 22),
)

WORKER = stack(
    "Condition.wait %threading.py:355",
    "Queue.get %queue.py:171",
    "_worker %concurrent/futures/thread.py:90",
    "Thread.run %threading.py:1012",
    "Thread._bootstrap_inner %threading.py:1075",
    "Thread._bootstrap %threading.py:1032",
)
EXPORTER = stack(
    "Condition.wait %threading.py:359",
    "BatchProcessor.worker +opentelemetry/sdk/_shared_internal/__init__.py:153",
    "Thread.run %threading.py:1012",
    "Thread._bootstrap_inner %threading.py:1075",
    "Thread._bootstrap %threading.py:1032",
)
LOGGER = stack(
    "StreamHandler.flush %logging/__init__.py:1143",
    "AuditShipper.emit /opt/airflow/plugins/acme/audit.py:88",
    "AuditShipper.run /opt/airflow/plugins/acme/audit.py:61",
    "Thread._bootstrap_inner %threading.py:1075",
    "Thread._bootstrap %threading.py:1032",
)
DUMP_AT = 30.2


def _turns() -> tuple[Iteration, ...]:
    turns = []
    for number in range(9, 0, -1):
        start = DUMP_AT + number * 1.9
        scheduling, executor = 0.42 + number % 3 * 0.2, 0.31 + number % 2 * 0.35
        turns.append(
            Iteration(
                start,
                1.86,
                (
                    ("scheduling", 0.01, scheduling),
                    (PHASE, 0.02 + scheduling, executor),
                    ("timers", 0.03 + scheduling + executor, 0.05),
                    ("idle", 0.09 + scheduling + executor, 1.76 - scheduling - executor),
                ),
            )
        )
    now = (("scheduling", 0.01, 0.55), (PHASE, 0.58, DUMP_AT - 0.58))
    return (*turns, Iteration(DUMP_AT, None, now))


def _calls() -> tuple[CallRecord, ...]:
    calls = [
        CallRecord(POST, SERVER, "MainThread", DUMP_AT + ago, took, answer, guarded=True)
        for ago, took, answer in (
            (17.2, 0.031, "201"),
            (15.1, 0.027, "201"),
            (13.3, 0.24, "409"),
            (11.6, 0.033, "201"),
            (9.4, 0.028, "201"),
            (7.4, 1.31, "ReadTimeoutError"),
            (5.9, 0.91, "201"),
            (3.7, 0.062, "201"),
            (1.6, 0.055, "201"),
        )
    ]
    watch = CallRecord(
        "GET /api/v1/namespaces/{namespace}/pods", SERVER, "acme-audit", DUMP_AT + 18.6, 6.4, "200"
    )
    return (watch, *calls)


KERNEL = ThreadInKernel(
    native_id=7,
    state="S",
    wchan="wait_woken",
    wait=Wait(
        syscall="recvfrom",
        arguments=(14, 140_612_000, 5, 0, 0, 0),
        descriptors=(
            Descriptor(
                number=14,
                kind="tcp",
                local="10.244.3.17:48122",
                remote=SERVER,
                peer="Kubernetes API",
                tcp=Tcp(
                    state="ESTABLISHED",
                    unacked=0,
                    retransmits=0,
                    retransmitted=3,
                    sent_s=29.6,
                    received_s=31.2,
                    acked_s=29.6,
                    send_queue=0,
                    receive_queue=0,
                ),
            ),
        ),
    ),
    voluntary=184_211,
    involuntary=9_310,
    cpu_s=412.7,
)
PROCESS = ProcessFacts(
    cpu_s=431.2,
    cpu_share=0.004,
    cpu_limit=2.0,
    memory=412_000_000,
    memory_limit=2_147_483_648,
    memory_used=811_000_000,
    throttled_s=0.0,
    pressure=(("cpu", 0.0), ("memory", 1.4), ("io", 0.2)),
    descriptors=61,
    descriptor_limit=1_048_576,
    threads=19,
    children=(
        Child(
            31,
            "KubernetesJobWatcher",
            "sleeping",
            86_120.0,
            1,
            "recvfrom on tcp 10.96.0.1:443",
            61.0,
            7,
        ),
        Child(48, "python3.12", "sleeping", 1_204.0, 1, "futex", 0.0, 7, never_wakes=True),
        Child(32, "gunicorn: serve_logs", "sleeping", 86_119.0, 1, "select", 12.5, 7),
    ),
    more_children=2,
    load=(0.41, 0.38, 0.35),
    clock_jump_s=0.002,
    late_s=0.11,
)


TASKS = (
    TaskGroup(1, "running", ("acme_daily/run/sense/-1/1 (ID 7)",), (), None, "MainThread"),
    TaskGroup(
        12,
        "waits",
        ("acme_daily/run/wait/-1/1 (ID 8)", "acme_daily/run/wait/-1/1 (ID 9)"),
        (Frame("AcmeTrigger.run", "/opt/airflow/plugins/acme_trigger.py", 31),),
        "Future",
        "MainThread",
    ),
)


def everything() -> Incident:
    """Return an incident in which nothing is missing."""
    early = tuple(Sample(float(at), SENDING if at < 16 else STUCK) for at in range(15, 31))
    pool = tuple(
        ThreadStack(200 + n, f"ThreadPoolExecutor-0_{n}", WORKER, 40 + n) for n in range(14)
    )
    return Incident(
        id=f"20261122T235421Z-{HOST}-7-3",
        host=HOST,
        pid=7,
        began=BEGAN,
        first_dump=BEGAN + DUMP_AT,
        silence_s=61.4,
        phase=PHASE,
        finding=Finding(
            id="kubernetes-api-silent",
            confidence="high",
            sentence=(
                f"MainThread has been silent for 30 s in phase {PHASE}: {POST} to {SERVER} sent its"
                " request 30 s ago and no byte of an answer has come."
            ),
            remedy=(
                "Give the executor's calls a read timeout (Airflow 2.11 and 3.x):\n"
                '[kubernetes_executor] kube_client_request_args = {"_request_timeout": [10, 60]}\n'
                "It does not reach PATCH calls (adoption, marking a pod as done).\n"
                "[watchdog_hook] request_timeout = 10,60 reaches the executor's calls that have no"
                " timeout, PATCH too."
            ),
            signs=(
                "innermost frame SSLSocket.read (ssl.py:1105)",
                f"{POST} to {SERVER} in flight for 29.6 s (guarded)",
                "last byte on its connection 31.2 s ago",
            ),
            raise_helps=True,
        ),
        snapshot=Snapshot(
            threads=(
                ThreadStack(101, "MainThread", STUCK, 7),
                *pool[:6],
                ThreadStack(150, "OtelBatchSpanRecordProcessor", EXPORTER, 33),
                *pool[6:],
                ThreadStack(151, "OtelBatchLogRecordProcessor", EXPORTER, 34),
                ThreadStack(152, "acme-audit", LOGGER, 35),
            ),
            samples=early,
            in_flight=(CallRecord(POST, SERVER, "MainThread", 29.6, guarded=True),),
            recent=_calls(),
            unavailable=(
                ("processor throttling", "no cgroup controller cpu here"),
                ("child 48's system call", "Permission denied"),
            ),
            observed=Observed(
                kernel=KERNEL,
                process=PROCESS,
                tasks=TASKS,
                locks=(
                    LockWait(
                        "acme-audit",
                        "self.lock of logging.StreamHandler",
                        LOGGER[0],
                        "MainThread",
                        STUCK[0],
                        "its frames",
                    ),
                ),
                executors=(
                    ExecutorFacts(
                        "KubernetesExecutor",
                        queued=0,
                        running=41,
                        open_slots=23,
                        task_queue=6,
                        oldest_s=31.0,
                        watchers=(
                            Watcher(31, "airflow", 4.2),
                            Watcher(49, "airflow-ml"),
                        ),
                    ),
                    ExecutorFacts("LocalExecutor", queued=0, running=0, open_slots=32),
                ),
                iterations=_turns(),
                normal=NORMAL,
            ),
        ),
        call=POST,
        peer=SERVER,
        age_s=29.6,
        ended=BEGAN + 61.4,
        job_id="18",
        process_started=BEGAN - 86_125,
        versions={
            "python": "3.12.7",
            "watchdog_hook": "0.1.0",
            "apache-airflow": "3.3.2",
            "apache-airflow-providers-cncf-kubernetes": "10.25.0",
            "kubernetes": "35.0.0",
            "urllib3": "2.5.0",
        },
        settings={"dump_after": "30", "interrupt": "api_calls", "interrupt_after": "60"},
        actions=(
            Deed(60.2, "raise StuckApiCall", "signal", "landed"),
            Deed(60.3, "put back on the task queue, same pod name", None, "silent"),
        ),
        waiting=6,
    )


def early() -> Incident:
    """Return an incident of an early release: stacks, a call, and nothing that was added since."""
    whole = everything()
    return whole.evolve(
        id=f"20261101T101500Z-{HOST}-7-1",
        ended=None,
        actions=(),
        waiting=None,
        versions={},
        settings={},
        job_id=None,
        process_started=None,
        snapshot=Snapshot(
            threads=(whole.snapshot.threads[0],),
            in_flight=whole.snapshot.in_flight,
        ),
    )


def with_text(value: Any, text: str) -> Any:
    """Return the same value with this text in every field that is one, however deep."""
    if isinstance(value, str):
        return text
    if isinstance(value, tuple):
        return tuple(with_text(each, text) for each in value)
    if isinstance(value, dict):
        return {f"{text} {key}": with_text(each, text) for key, each in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {
            f.name: with_text(getattr(value, f.name), text) for f in dataclasses.fields(value)
        }
        return dataclasses.replace(value, **changed)
    return value


def write(directory: Path, incident: Incident, **files: str | None) -> Path:
    """Write an incident's folder as the watchdog does; further files by their names without `.txt`."""
    folder = directory / incident.id
    folder.mkdir(parents=True)
    (folder / "incident.json").write_text(json.dumps(report.to_json(incident)))
    texts = {"dump": report.render(incident, limit=None), **files}
    for name, text in texts.items():
        if text is not None:
            (folder / f"{name.replace('_', '-')}.txt").write_text(text, "utf-8", "surrogatepass")
    return folder
