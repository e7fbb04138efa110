"""The HTTP client under huggingface_hub, with patience that ends: no silence and no trickle of bytes lasts for ever.

huggingface_hub sets no time-out on most requests, and none of its time-outs ends a body of which one byte a second
arrives. What goes through hf_xet has that library's own time-outs.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import httpx2
from huggingface_hub import constants, get_session, set_client_factory
from huggingface_hub.errors import HfHubHTTPError

SLOWEST = 1_000  # bytes/s, over a time in which silence would be a time-out
ANSWER = 12  # times HF_HUB_DOWNLOAD_TIMEOUT, for requests without a time-out of their own: a large commit takes minutes
WAITS = (1, 2, 4)  # s before a request is repeated
_installing = threading.Lock()
_UNWELL = {500, 502, 503, 504}
_Result = TypeVar("_Result")


class Stalled(TimeoutError):
    """The other side fell silent, or all but silent."""


class Client(httpx2.Client):
    """Raises Stalled where the Hub stalls."""

    def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        limits = request.extensions.get("timeout", {})
        patience = constants.HF_HUB_DOWNLOAD_TIMEOUT
        answer = ANSWER * patience
        usual = {"connect": patience, "read": answer, "write": answer, "pool": answer}
        own = {key: limits.get(key) or seconds for key, seconds in usual.items()}
        request.extensions = {**request.extensions, "timeout": own}
        request.stream = _Leaving(request.stream, own["write"])
        try:
            response = super().send(request, stream=True, **options)
            response.stream = _Arriving(response.stream, own["read"])
            return response if stream else _read(response)
        except (httpx2.ReadTimeout, httpx2.WriteTimeout):
            if limits.get("read"):
                raise  # huggingface_hub set it, and tries again
            raise Stalled(f"no answer for {answer} s") from None


def _read(response: httpx2.Response) -> httpx2.Response:
    try:
        response.read()
    except BaseException:
        response.close()
        raise
    return response


def install() -> None:
    """Make huggingface_hub use `Client` in this process; calls after the first do nothing."""
    with _installing:  # threads may be the first together, and what is set anew closes connections
        _install()


@functools.cache
def _install() -> None:
    hooks = get_session().event_hooks  # huggingface_hub's own, which keep offline mode
    set_client_factory(lambda: Client(event_hooks=hooks, follow_redirects=True, timeout=None))


def patiently(call: Callable[[], _Result]) -> _Result:
    """The result of `call`, tried again after each of WAITS where the Hub answers 5xx or drops the connection.

    `call` must be safe to repeat; its last error is raised.
    """
    for wait in WAITS:
        try:
            return call()
        except (HfHubHTTPError, httpx2.ReadError, httpx2.RemoteProtocolError) as error:
            if isinstance(error, HfHubHTTPError) and error.response.status_code not in _UNWELL:
                raise
        time.sleep(wait)
    return call()


class _Watch:
    """Adds up waiting and bytes; Stalled when `limit` seconds of waiting brought fewer than SLOWEST bytes each."""

    def __init__(self, limit: float):
        self.limit, self.waited, self.moved = limit, 0.0, 0

    def add(self, seconds: float, moved: int) -> None:
        self.waited += seconds
        self.moved += moved
        if self.waited < self.limit:
            return
        if self.moved < SLOWEST * self.waited:
            raise Stalled(f"{self.moved} bytes in {self.waited:.0f} s")
        self.waited, self.moved = 0.0, 0


class _Watched(httpx2.SyncByteStream):
    def __init__(self, stream: Any, limit: float):
        self.stream, self.limit = stream, limit

    def close(self) -> None:
        if isinstance(self.stream, httpx2.SyncByteStream):
            self.stream.close()


class _Arriving(_Watched):
    """A response's body: the time until each chunk comes counts."""

    def __iter__(self) -> Iterator[bytes]:
        watch, chunks = _Watch(self.limit), iter(self.stream)
        while True:
            began = time.monotonic()
            chunk = next(chunks, None)
            if chunk is None:
                return
            watch.add(time.monotonic() - began, len(chunk))
            yield chunk


class _Leaving(_Watched):
    """A request's body: the time until each chunk is sent counts."""

    def __iter__(self) -> Iterator[bytes]:
        watch = _Watch(self.limit)
        chunks: Iterable[bytes] = self.stream
        for chunk in chunks:
            began = time.monotonic()
            yield chunk
            watch.add(time.monotonic() - began, len(chunk))
