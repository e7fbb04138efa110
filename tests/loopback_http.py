"""HTTP on 127.0.0.1 for the loopback Hub: requests in, answers out, also such as break off, crawl or never come."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def token(self) -> str | None:
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None


@dataclass(frozen=True)
class Response:
    """An answer; `cut`: bytes of the body after which the connection is closed; `rate`: bytes/s of the body.

    Status 0 is no answer at all: the connection is closed.
    """

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    rate: float | None = None


def as_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


def ranged(request: Request, data: bytes, headers: dict[str, str]) -> Response:
    """The part of `data` that the header Range asks for: `bytes=a-b`, `bytes=a-` or `bytes=-n` (the last n)."""
    wanted = request.headers.get("range")
    headers = {"Accept-Ranges": "bytes", **headers}
    if wanted is None:
        return Response(200, data, headers)
    first, last = wanted.removeprefix("bytes=").split("-")
    start = int(first) if first else max(0, len(data) - int(last))
    stop = min(int(last) + 1, len(data)) if first and last else len(data)
    if start >= stop:
        return as_json({"error": f"range {wanted} of {len(data)} bytes"}, 416)
    return Response(206, data[start:stop], {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})


class _Patient(ThreadingHTTPServer):
    request_queue_size = 128  # clients connect many at a time; with the default of 5 a late accept drops some
    daemon_threads = True


class Server:
    """Answers while it is entered; `host` is a name of this machine."""

    def __init__(self, answer: Callable[[Request], Response], port: int = 0, host: str = "127.0.0.1") -> None:
        self.server = _Patient(("127.0.0.1", port), _handler(answer))
        self.url = f"http://{host}:{self.server.server_address[1]}"

    def __enter__(self) -> Server:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def _handler(answer: Callable[[Request], Response]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each answer waits 40 ms for the client's acknowledgement

        def handle_any(self) -> None:
            url = urlsplit(self.path)
            query = {key: values[-1] for key, values in parse_qs(url.query).items()}
            headers = {key.lower(): value for key, value in self.headers.items()}
            response = answer(Request(self.command, url.path, query, headers, self.read_body()))
            if response.status == 0:
                self.close_connection = True
                return
            self.send_response(response.status)
            for key, value in {**response.headers, "Content-Length": str(len(response.body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                with contextlib.suppress(ConnectionError):  # the client has gone
                    self.send_body(response)

        def send_body(self, response: Response) -> None:
            if response.rate:
                for place in range(len(response.body)):
                    self.wfile.write(response.body[place : place + 1])
                    time.sleep(1 / response.rate)
                return
            self.wfile.write(response.body[: response.cut])
            self.close_connection = response.cut is not None

        do_GET = do_HEAD = do_POST = do_PUT = handle_any

        def read_body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Quiet: who answers keeps the log."""

    return Handler
