"""Calls of the Kubernetes client: each in the book, those of an executor guarded."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import urllib3

from watchdog_hook.core.model import Call, InFlight, StuckCallTimeout
from watchdog_hook.integrations.api_request import describe
from watchdog_hook.integrations.api_server import Server

if TYPE_CHECKING:
    from watchdog_hook.watchdog import Watchdog

BROKEN = "_watchdog_hook_call"  # on an exception: the streamed call of an executor whose connection broke
FOLLOWED = ("release_conn", "close")  # methods of a response that end its body


class StuckApiCall(StuckCallTimeout, urllib3.exceptions.HTTPError):
    """
    A Kubernetes API call of the executor that got no answer: interrupted, broken off or not made at all.

    An HTTPError, so that whoever handles those sees one; neither a timeout nor a protocol or connection
    error, which urllib3 retries, nor an ApiException, whose body the client decodes.
    """

    why = "silent"  # silent: interrupted; broken: the connection ended; refused: not made, the breaker is open

    def __str__(self) -> str:
        if self.why == "silent":
            return super().__str__()
        return f"{self.call}: " + (
            f"connection broke after {self.age_s:.0f} s; outcome unknown"
            if self.why == "broken"
            else "not made: the API server is left alone for a while"
        )


class ApiCalls:
    """
    Wraps `RESTClientObject.request`: the one place every synchronous call of the client goes through.

    A call is guarded, and only then ever interrupted or refused, when one of our boundaries is above it on
    the executor's thread and the client is the executor's own. A call that a pod_mutation_hook, a plugin or a
    listener makes is in the book and never touched: nothing above it would know what to do.
    """

    def __init__(self, dog: Watchdog) -> None:
        self._dog = dog
        self._servers: dict[
            int, Server
        ] = {}  # by id of the rest client, which `_clients` keeps alive
        self._clients: list[Any] = []
        self._thread = threading.get_ident()
        self.depth = 0  # of boundaries above, on the executor's thread
        self.active = True
        # Names of parts without which an ended call would cost a task: once one is off, nothing is guarded.
        self.vital: set[str] = set()

    def own(self, api_client: Any) -> Server:
        """Take a client as an executor's own, and return its server."""
        rest = api_client.rest_client
        if id(rest) not in self._servers:
            self._clients.append(rest)
            self._servers[id(rest)] = Server(self._dog, api_client)
        return self._servers[id(rest)]

    @property
    def servers(self) -> list[Server]:
        """The servers of all executors."""
        return list(self._servers.values())

    def boundary(
        self, name: str, default: Any, wrapped: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        """Make a call that can be made again later: return `default` when an API call in it got stuck."""
        if not self.active or threading.get_ident() != self._thread:
            return wrapped(*args, **kwargs)
        self.depth += 1
        try:
            return wrapped(*args, **kwargs)
        except StuckApiCall as error:
            self._absorbed(name, error.call, error.why, error)
            return default
        except Exception as error:
            call = getattr(error, BROKEN, None)
            if call is None or not self._dog.config.requeue_connection_errors:
                raise
            self._absorbed(name, call, "broken")
            return default
        finally:
            self.depth -= 1

    def _absorbed(
        self, name: str, call: str | None, why: str, error: StuckApiCall | None = None
    ) -> None:
        self._dog.note(
            "absorbed",
            incident=error.incident if error else None,
            call=call,
            age_s=error.age_s if error else None,
            action=f"{name} is tried again later",
            outcome=why,
        )

    def skips(self, name: str) -> bool:
        """Tell whether work that begins with a call is to be left out now: a server is left alone."""
        if not self.active or threading.get_ident() != self._thread:
            return False
        if all(server.allows() for server in self.servers):
            return False
        self._absorbed(name, None, "refused")
        return True

    def request(
        self, wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: dict[str, Any]
    ) -> Any:
        """Stand in for `RESTClientObject.request`."""
        if not self.active:
            return wrapped(*args, **kwargs)
        fail = self._dog.fail
        ours = self._servers.get(id(instance)) if threading.get_ident() == self._thread else None
        call = fail.run("describe", describe, args, kwargs)
        if call is None:
            return wrapped(*args, **kwargs)
        server = ours if self.depth and call.kind == "api" and self._may_guard() else None
        if server is not None and not server.allows():
            raise _error(call, 0.0, "refused")
        if ours is not None and call.kind == "api":
            self._limit(kwargs)
        flight = fail.run(
            "book",
            self._dog.enter,
            call,
            guarded=server is not None,
            limit=server.breaker.limit if server else None,
            error=StuckApiCall,
        )
        if flight is None:
            return wrapped(*args, **kwargs)
        try:
            response = wrapped(*args, **kwargs)
        except BaseException as error:
            fail.run("book", self._dog.leave, flight, _name(error))
            flight.bytes = fail.run("bytes", _bytes_of, error)
            raised = self._outcome(flight, error, server)
            if raised is None:
                raise
            try:
                raise raised from error
            finally:
                del raised  # else it and this frame would hold each other
        if kwargs.get("_preload_content", True):
            fail.run("book", self._dog.leave, flight, str(getattr(response, "status", "?")))
            flight.bytes = fail.run("bytes", _bytes_of, response)
            if server is not None:
                server.answered()
        else:
            fail.run("book", self._follow, flight, response, server)
            flight.bytes = fail.run("bytes", _bytes_of, response)
        return response

    def _may_guard(self) -> bool:
        return self._dog.config.may_interrupt and not (self.vital & self._dog.fail.off)

    def _limit(self, kwargs: dict[str, Any]) -> None:
        # Generated methods pass None explicitly, so a default has to look at the value.
        timeout = self._dog.config.request_timeout
        if timeout is not None and kwargs.get("_request_timeout") is None:
            kwargs["_request_timeout"] = timeout

    def _outcome(
        self, flight: InFlight, error: BaseException, server: Server | None
    ) -> StuckApiCall | None:
        """Return what to raise in place of what a guarded call raised; None: that very exception passes."""
        if server is None or not isinstance(error, Exception):
            return None
        if isinstance(error, StuckApiCall):
            server.failed()
            return None
        age = (flight.ended or self._dog.now) - flight.started
        if flight.fired:
            server.failed()
            return _error(flight.call, age, "silent", flight.incident)
        if is_broken(error):
            server.failed()
            again = self._dog.config.requeue_connection_errors
            return _error(flight.call, age, "broken") if again else None
        if getattr(error, "status", None):
            server.answered()
        return None

    def _follow(self, flight: InFlight, response: Any, server: Server | None) -> None:
        """Keep a call whose body is read later in the book until that has been read or closed."""
        status = str(response.status)
        own = {name: vars(response)[name] for name in FOLLOWED if name in vars(response)}

        def leave() -> None:
            if flight.ended is not None:
                return
            error = sys.exc_info()[1]  # urllib3 calls us while it passes on
            broken = error is not None and is_broken(error)
            stuck = flight.fired or broken
            self._dog.leave(flight, type(error).__name__ if error is not None else status)
            # Ours no more: else the response and what stands on it would hold each other.
            for name in FOLLOWED:
                vars(response).pop(name, None)
            vars(response).update(own)
            if server is None:
                return
            if broken:
                setattr(error, BROKEN, flight.call.name)
            server.failed() if stuck else server.answered()

        def until(method: Callable[..., Any]) -> Callable[..., Any]:
            def and_leave(*args: Any, **kwargs: Any) -> Any:
                self._dog.fail.run("book", leave)
                return method(*args, **kwargs)

            return and_leave

        # urllib3 calls both by attribute, on the response itself, at the end of the body and on errors.
        for name in FOLLOWED:
            setattr(response, name, until(getattr(response, name)))
        if flight.call.kind == "stream":
            flight.guarded = False


def is_broken(error: BaseException) -> bool:
    """
    Tell whether a call ended without an answer because its connection broke or could not be made.

    Not for certificate, proxy or location errors: those are answers of a kind, and stay as they are.
    """
    import ssl

    known = urllib3.exceptions
    if isinstance(error, known.MaxRetryError):
        return error.reason is not None and is_broken(error.reason)
    if isinstance(error, known.SSLError):
        # A handshake cut off by the peer; anything else about TLS is for a person to look at.
        return any(
            isinstance(part, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) for part in error.args
        )
    if getattr(error, "status", None) == 0 and isinstance(error.__context__, known.HTTPError):
        return is_broken(error.__context__)  # kubernetes' ApiException(status=0) of an SSLError
    return isinstance(
        error,
        (
            known.ProtocolError,
            known.NewConnectionError,
            known.ReadTimeoutError,
            known.ConnectTimeoutError,
        ),
    )


def _error(call: Call, age: float, why: str, incident: str | None = None) -> StuckApiCall:
    error = StuckApiCall(call.name, age, incident)
    error.why = why
    return error


def _name(error: BaseException) -> str:
    status = getattr(error, "status", None)
    return str(status) if status else type(error).__name__


def _bytes_of(answer: object) -> int | None:
    """Return the length of an answer: of what is there already, else what its head says. Reads nothing."""
    # The dictionary, not the attributes: a property may read the body.
    parts = getattr(answer, "__dict__", {})
    for name in ("data", "body"):  # of a response, of an ApiException
        if isinstance(parts.get(name), bytes):
            return len(parts[name])
    head = getattr(parts.get("headers"), "get", None)
    length = head("Content-Length") if callable(head) else None
    return int(length) if isinstance(length, str) and length.isdecimal() else None
