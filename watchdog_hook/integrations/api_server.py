"""One Kubernetes API server: whether it answers, and the breaker and the probe for when it does not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import urllib3

from watchdog_hook.core.breaker import Breaker, Gate
from watchdog_hook.integrations.api_request import peer_of

if TYPE_CHECKING:
    from watchdog_hook.watchdog import Watchdog

PROBE_TIMEOUT = (2.0, 3.0)  # seconds to connect, and to answer


class Server:
    """
    One API server as an executor's client sees it. Written by the executor's thread only.

    The probe's thread leaves its result in `probed`, which that thread picks up: no lock is needed.
    """

    def __init__(self, dog: Watchdog, api_client: Any) -> None:
        self.peer = peer_of(str(api_client.configuration.host))
        self.answers = 0
        self._dog = dog
        self._configuration = api_client.configuration
        self.breaker = Breaker(dog.config.breaker_after, dog.config.breaker_open_for)
        self._probed: bool | None = None
        self._probe: threading.Thread | None = None
        self._probing = False
        self.on_failure: list[Callable[[], None]] = []

    def allows(self) -> bool:
        """Tell whether a guarded call may be made now."""
        self.breaker = self.breaker.aged(self._dog.now)
        if self._probed is not None:
            answered, self._probed = self._probed, None
            self.breaker = self.breaker.probed(answered, self._dog.now)
        return self.breaker.allows

    def failed(self) -> None:
        """A guarded call was interrupted or its connection broke."""
        for told in self.on_failure:
            told()
        before, self.breaker = self.breaker, self.breaker.failed(self._dog.now)
        if self.breaker.gate is Gate.OPEN and before.gate is not Gate.OPEN:
            self._dog.note(
                "breaker_open",
                peer=str(self.peer),
                action="pod creation waits; the server is probed with GET /version",
                failures=self.breaker.failures,
                open_s=self.breaker.length,
            )

    def answered(self) -> None:
        """The server answered a call, whatever it said."""
        self.answers += 1
        before, self.breaker = self.breaker, self.breaker.answered()
        if before.gate is not Gate.CLOSED:
            self._dog.note(
                "breaker_closed", peer=str(self.peer), open_s=self._dog.now - before.since
            )

    def tick(self, now: float) -> None:
        """Start the probe when it is due. Called by the watchdog's thread."""
        if self._probed is not None or not self.breaker.probe_due(now):
            return
        if self._probe is None or not self._probe.is_alive():
            self._probe = threading.Thread(
                target=self._ask, name="watchdog-hook-probe", daemon=True
            )
            self._probe.start()

    @property
    def probing(self) -> bool:
        """Whether the probe is setting up its connection: a time at which a fork should wait."""
        return self._probing

    def _ask(self) -> None:
        import copy

        from kubernetes import client

        self._probing = True
        try:
            configuration = copy.copy(self._configuration)
            configuration.retries = False
            api_client = client.ApiClient(configuration)
            self._probing = False
            try:
                client.VersionApi(api_client).get_code(_request_timeout=PROBE_TIMEOUT)
                answered = True
            except client.ApiException as error:
                answered = bool(
                    error.status
                )  # 401 and 403 are answers too; 0 is a broken connection
            except urllib3.exceptions.HTTPError:
                answered = False
            except (ValueError, TypeError, AttributeError):
                answered = True  # and the client cannot make a VersionInfo of it
            finally:
                api_client.rest_client.pool_manager.clear()
        except Exception:  # noqa: BLE001 - whatever it was, the server did not answer
            answered = False
        finally:
            self._probing = False
        self._probed = answered
