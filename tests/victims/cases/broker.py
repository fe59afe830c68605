"""The broker of the CeleryExecutor: redis-py and py-amqp by way of Celery's own producer."""

from __future__ import annotations

import socket
from typing import Any

from tests.victims.stage import Stage, case

PHASE = "executor.heartbeat (CeleryExecutor)"
LARGE = 8_000_000


def celery(url: str) -> Any:
    """Return a Celery application as the executor has it."""
    from celery import Celery

    app = Celery("airflow.executors.celery_executor", broker=url)
    app.conf.update(broker_connection_retry=False, task_ignore_result=True)
    return app


def publish(app: Any, size: int = 10) -> None:
    """Send one task."""
    app.send_task("execute_workload", args=["x" * size], queue="default", retry=False)


@case("broker-silent")
def redis_silent(stage: Stage) -> None:
    server = stage.peer("tcp", part="redis", port=6379)
    app = celery("redis://127.0.0.1:6379/0")
    publish(app)
    with stage.watched(PHASE):
        server.do("silence")
        publish(app)


@case("broker-silent--amqp")
def amqp_silent(stage: Stage) -> None:
    """The server takes the connection and never greets."""
    stage.peer("tcp", part="mute", port=5672)
    with stage.watched(PHASE):
        publish(celery("amqp://guest:guest@127.0.0.1:5672//"))


@case("broker-flow-control--amqp")
def amqp_full(stage: Stage) -> None:
    """Early: py-amqp gives up after about a second."""
    server = stage.peer("tcp", part="amqp", port=5672)
    app = celery("amqp://guest:guest@127.0.0.1:5672//")
    with app.pool.acquire(block=True) as connection:
        producer = app.amqp.Producer(connection.channel())
        server.do("deafen")
        stage.enter(stage.watched(PHASE, dump_after=0.6))
        producer.publish("x" * LARGE, routing_key="default")


@case("broker-flow-control")
def redis_full(stage: Stage) -> None:
    server = stage.peer("tcp", part="redis", port=6379)
    app = celery("redis://127.0.0.1:6379/0")
    publish(app)
    with stage.watched(PHASE):
        server.do("deafen")
        publish(app, LARGE)


@case("broker-connect")
def redis_gone(stage: Stage) -> None:
    server = stage.peer("tcp", part="redis", port=6379)
    app = celery("redis://127.0.0.1:6379/0")
    server.do("lose")
    with stage.watched(PHASE, dump_after=4):
        publish(app)


@case("broker-connect--amqp")
def amqp_gone(stage: Stage) -> None:
    server = stage.peer("tcp", part="amqp", port=5672)
    server.do("lose")
    with stage.watched(PHASE, dump_after=4):
        publish(celery("amqp://guest:guest@127.0.0.1:5672//"))


@case("broker-unreachable")
def redis_lost(stage: Stage) -> None:
    server = stage.peer("tcp", part="redis", port=6379)
    app = celery("redis://127.0.0.1:6379/0")
    publish(app)
    with stage.watched(PHASE, dump_after=4):
        server.do("lose")
        publish(app)


# --- near misses ------------------------------------------------------------------------------------------


@case("not-broker-silent--published")
def published(stage: Stage) -> None:
    """The broker took the task; the thread then waits for somebody else."""
    stage.peer("tcp", part="redis", port=6379)
    other = stage.peer("tcp", part="mute")
    app = celery("redis://127.0.0.1:6379/0")
    with stage.watched(PHASE):
        publish(app)
        with socket.create_connection((other.info["host"], other.info["port"])) as sock:
            sock.recv(1)


@case("not-broker-flow-control--taken")
@case("not-broker-unreachable--taken")
def taken(stage: Stage) -> None:
    """A large task has been taken to its last byte, and acknowledged; the answer is what is missing."""
    server = stage.peer("tcp", part="redis", port=6379)
    app = celery("redis://127.0.0.1:6379/0")
    publish(app)
    with stage.watched(PHASE, dump_after=4):
        server.do("silence")
        publish(app, LARGE)


@case("not-broker-connect--connected")
def greeted_by_nobody(stage: Stage) -> None:
    """The connection was made at once; the server's first word is what is missing."""
    stage.peer("tcp", part="mute", port=6379)
    with stage.watched(PHASE):
        publish(celery("redis://127.0.0.1:6379/0"))
