"""Whom a connection leads to, in words: the servers that Airflow is configured with."""

from __future__ import annotations

import socket
from functools import partial
from urllib.parse import urlsplit

from watchdog_hook.core.observed import Descriptor
from watchdog_hook.errand import Errands

LOOKUP = 2.0  # seconds for a name to be looked up, when the watchdog is armed
NAMESERVER = 53


class Place:
    """A server by host and port. Its name is looked up once: at a stall the name service may be what is stuck."""

    def __init__(self, host: str | None, port: int | None) -> None:
        self._port = port
        self._addresses = {host} if host else set()
        if host:
            Errands("watchdog-hook-names", LOOKUP).send(partial(self._look_up, host))

    def is_end_of(self, descriptor: Descriptor) -> bool:
        """Tell whether a connection leads here."""
        host, _, port = (descriptor.remote or "").rpartition(":")
        return bool(host) and port == str(self._port) and host.strip("[]") in self._addresses

    def _look_up(self, host: str) -> None:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        self._addresses = self._addresses | {str(entry[4][0]) for entry in found}


def broker() -> Place | None:
    """Return the CeleryExecutor's broker; None where none is configured."""
    from airflow.configuration import conf

    url = urlsplit(conf.get("celery", "broker_url", fallback="") or "")
    ports = {"redis": 6379, "rediss": 6379, "amqp": 5672, "amqps": 5671, "pyamqp": 5672}
    return Place(url.hostname, url.port or ports.get(url.scheme)) if url.hostname else None


def is_nameserver(descriptor: Descriptor) -> bool:
    """Tell whether a socket leads to a name server."""
    return (descriptor.remote or "").endswith(f":{NAMESERVER}")
