"""Faults that the Hub or the network inject: each push and pull finishes, or ends in one line, in bounded time.

Never wrong data, an endless hang, or a half-visible data set. A table says what goes wrong in which requests, and what
the line must name; no names, and the transfer must finish. When the fault has passed, the same command finishes.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from loopback_hub import LoopbackHub, Request, Response, as_json
from made_dataset import made_episodes, make_dataset
from processes import client

from lawm_data import transport
from lawm_data.manifest import NAME, Manifest

FOREVER = 10**9
SECONDS = 60  # in which every job must have ended, on a busy machine; the client is given twice as long
TIMEOUT = "2"  # HF_HUB_DOWNLOAD_TIMEOUT
SHARD = "unlabeled-00001"


@dataclass(frozen=True)
class Fault:
    """What happens to the first `times` requests whose `METHOD path` holds all `words`."""

    words: str
    times: int
    act: Callable[[Response], Response | None]  # None: no answer for long
    named: tuple[str, ...] = ()
    before: bool = True  # instead of what the Hub does; else it does it, and the answer is changed


def status(code: int, message: str = "", error_code: str = "") -> Callable[[Response], Response]:
    headers = {"Retry-After": "0", "X-Error-Message": message, "X-Error-Code": error_code}
    return lambda _: as_json({"error": message}, code, {key: value for key, value in headers.items() if value})


def silence(_: Response) -> None:
    return None


def hang_up(response: Response) -> Response:
    return replace(response, status=0)


def cut(response: Response) -> Response:
    return replace(response, cut=len(response.body) // 2)


def trickle(response: Response) -> Response:
    return replace(response, rate=5)


def truncated(response: Response) -> Response:
    return replace(response, body=response.body[:-100])


def flipped(response: Response) -> Response:
    half = len(response.body) // 2
    return replace(response, body=response.body[:half] + bytes([response.body[half] ^ 1]) + response.body[half + 1 :])


def login_page(_: Response) -> Response:
    return Response(200, b"<html>Welcome to the hotel</html>", {"Content-Type": "text/html"})


EXPIRED = status(401, "Invalid credentials in Authorization header")
AGAIN = "run the same command again"
INFO, TREE, COMMIT = "GET /api /revision/", "GET /tree/", "POST /commit/"
HEAD, GET = f"HEAD {SHARD}", f"GET {SHARD}"

PULL: dict[str, Fault] = {
    "500-burst-info": Fault("GET /api/", 2, status(500)),
    "503-burst-head": Fault(HEAD, 2, status(503)),
    "503-burst-shard": Fault(GET, 2, status(503)),
    "500-shard": Fault(GET, FOREVER, status(500, "Internal error"), ("the Hub answered 500", AGAIN)),
    "503-manifest": Fault(f"HEAD {NAME}", FOREVER, status(503), ("the Hub answered 503", AGAIN)),
    "cut-once": Fault(GET, 1, cut, before=False),
    "hang-up-once": Fault("GET /api/", 1, hang_up),
    "truncated": Fault(GET, FOREVER, truncated, ("the transfer failed", AGAIN), before=False),
    "flipped": Fault(GET, 1, flipped, (SHARD, "sha256", "Run again"), before=False),
    "trickle": Fault(GET, FOREVER, trickle, ("stalled", "bytes in", AGAIN), before=False),
    "trickle-manifest": Fault(f"GET {NAME}", FOREVER, trickle, ("stalled", AGAIN), before=False),
    "silent-shard": Fault(GET, FOREVER, silence, ("did not answer in time", AGAIN)),
    "silent-info": Fault("GET /api/", FOREVER, silence, ("stalled", "no answer for 24 s", AGAIN)),
    "expired": Fault(HEAD, FOREVER, EXPIRED, ("token", "expired", "hf auth login")),
    "401": Fault("GET /api/", FOREVER, status(401, "Repository not found", "RepoNotFound"), ("private", "token")),
    "403": Fault(HEAD, FOREVER, status(403, "Forbidden"), ("token may not do this",)),
    "404": Fault(HEAD, FOREVER, status(404, "Entry not found", "EntryNotFound"), (SHARD, "is not there")),
    "404-repository": Fault("GET /api/", FOREVER, status(404, "", "RepoNotFound"), ("no such dataset",)),
    "409": Fault(GET, FOREVER, status(409, "Busy"), ("at work on this repository",)),
    "412": Fault(GET, FOREVER, status(412, "Moved"), ("run again",)),
    "login-page": Fault("GET /api/", FOREVER, login_page, ("did not answer as a Hub", "HF_ENDPOINT")),
}
PUSH: dict[str, Fault] = {
    "500-burst-create": Fault("POST /repos/create", 1, status(500)),
    "503-burst-preupload": Fault("POST /preupload/", 2, status(503)),
    "500-burst-upload": Fault("PUT /lfs/", 2, status(500)),
    "503-burst-commit": Fault(COMMIT, 2, status(503)),
    "500-commit": Fault(COMMIT, FOREVER, status(500, "Internal error"), ("the Hub answered 500", AGAIN)),
    "503-upload": Fault("PUT /lfs/", FOREVER, status(503), ("the Hub answered 503", AGAIN)),
    "hang-up-upload": Fault("PUT /lfs/", 2, hang_up),
    "answer-lost": Fault(COMMIT, 1, hang_up, before=False),
    "silent-commit": Fault(COMMIT, FOREVER, silence, ("stalled", "no answer for 24 s", AGAIN)),
    "silent-upload": Fault("PUT /lfs/", FOREVER, silence, ("stalled", AGAIN)),
    "expired": Fault("POST /preupload/", FOREVER, EXPIRED, ("token", "expired", "hf auth login")),
    "403": Fault(COMMIT, FOREVER, status(403, "Forbidden"), ("write access",)),
    "404": Fault("POST /preupload/", FOREVER, status(404, "", "RepoNotFound"), ("no such dataset",)),
    "409": Fault(COMMIT, FOREVER, status(409, "Busy"), ("at work on this repository", "run again")),
    "412": Fault(COMMIT, FOREVER, status(412, "Moved"), ("somebody else pushed", "run again")),
    "login-page": Fault("POST /preupload/", FOREVER, login_page, ("did not answer as a Hub",)),
    "upload-refused": Fault("PUT /lfs/", FOREVER, status(403, "Expired link"), ("token may not do this",)),
    "tree-flaky": Fault(TREE, 2, status(503)),
}


class Faulty:
    """Injects into the requests of repository `tester/NAME` the fault NAME; uploads know no repository."""

    def __init__(self, faults: dict[str, Fault], uploads: dict[str, str]):
        self.faults, self.uploads = faults, uploads  # uploads: name of the fault by the digest that only it uploads
        self.left = {name: fault.times for name, fault in faults.items()}
        self.over = threading.Event()
        self.lock = threading.Lock()

    def due(self, request: Request, before: bool) -> Fault | None:
        name = self._name(request)
        fault = self.faults.get(name)
        line = f"{request.method} {request.path}"
        if fault is None or fault.before != before or not all(word in line for word in fault.words.split()):
            return None
        with self.lock:
            self.left[name] -= 1
            return fault if self.left[name] >= 0 else None

    def _name(self, request: Request) -> str:
        if request.path.startswith("/lfs/"):
            return self.uploads.get(request.path.removeprefix("/lfs/"), "")
        if request.path == "/api/repos/create":
            return request.body.decode().split('"name": "')[-1].split('"')[0].split("/")[-1] if request.body else ""
        return next((part for part in request.path.split("/") if part.removesuffix(".git") in self.faults), "")

    def instead(self, request: Request) -> Response | None:
        fault = self.due(request, before=True)
        return self._act(fault, Response(200)) if fault else None

    def changed(self, request: Request, response: Response) -> Response:
        fault = self.due(request, before=False)
        return self._act(fault, response) if fault else response

    def _act(self, fault: Fault, response: Response) -> Response:
        made = fault.act(response)
        if made is None:
            self.over.wait(SECONDS)
        return made or Response(500)


@contextmanager
def faulty(hub: LoopbackHub, faults: dict[str, Fault], uploads: dict[str, str]) -> Iterator[None]:
    injected = Faulty(faults, uploads)
    hub.fault, hub.spoil = injected.instead, injected.changed
    try:
        yield
    finally:
        injected.over.set()
        hub.fault = hub.spoil = None


@pytest.fixture(scope="module")
def pulls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("dataset")
    make_dataset(folder, made_episodes())
    content = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    names = [f"tester/{name}" for name in PULL]
    with LoopbackHub(tmp_path_factory.mktemp("hub")) as hub:
        for name in names:
            hub.publish(name, content)
        with faulty(hub, PULL, {}):
            first = client(hub, "pull", *names, str(folder), HF_HUB_DOWNLOAD_TIMEOUT=TIMEOUT)["outcomes"]
        second = client(hub, "pull", *names)["outcomes"]
    return {"first": first, "second": second, "content": first[str(folder)]["content"]}


@pytest.mark.parametrize("name", PULL)
def test_pull_finishes_or_ends_in_one_line(pulls: dict[str, Any], name: str) -> None:
    told(pulls["first"][f"tester/{name}"], PULL[name], f"tester/{name}")
    if not PULL[name].named:
        assert pulls["first"][f"tester/{name}"]["content"] == pulls["content"]
    assert pulls["second"][f"tester/{name}"]["content"] == pulls["content"], "the fault has passed"


@pytest.fixture(scope="module")
def pushes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Each push has a folder of its own, as the Hub never asks twice for the same content."""
    words: list[str | Path] = []
    published, uploads = {}, {}
    for number, name in enumerate(PUSH):
        folder = tmp_path_factory.mktemp("dataset")
        entries = make_dataset(folder, made_episodes(8, length=20 + number)).files
        withheld = Manifest.load(folder).withheld
        published[name] = {path: entry.sha256 for path, entry in entries.items() if path not in withheld}
        uploads |= {entry.sha256: name for entry in entries.values()}
        words += [folder, f"tester/{name}"]
    with LoopbackHub(tmp_path_factory.mktemp("hub")) as hub:
        with faulty(hub, PUSH, uploads):
            first = client(hub, "push", *words, HF_HUB_DOWNLOAD_TIMEOUT=TIMEOUT)["outcomes"]
        seen = {name: visible(hub, f"tester/{name}") for name in PUSH}
        second = client(hub, "push", *words)["outcomes"]
        finally_seen = {name: visible(hub, f"tester/{name}") for name in PUSH}
    return {"first": first, "second": second, "seen": seen, "finally": finally_seen, "published": published}


def visible(hub: LoopbackHub, repo: str) -> dict[str, str]:
    """What a reader of main finds."""
    if ("datasets", repo) not in hub.repositories:
        return {}
    return {path: file.sha256 for path, file in hub.files(repo).items() if path not in (".gitattributes", NAME)}


@pytest.mark.parametrize("name", PUSH)
def test_push_finishes_or_ends_in_one_line_and_shows_all_or_nothing(pushes: dict[str, Any], name: str) -> None:
    told(pushes["first"][f"tester/{name}"], PUSH[name], f"tester/{name}")
    whole = pushes["published"][name]
    assert pushes["seen"][name] == ({} if PUSH[name].named else whole)
    assert pushes["second"][f"tester/{name}"]["error"] is None and pushes["finally"][name] == whole


def told(outcome: dict[str, Any], fault: Fault, repo: str) -> None:
    line = outcome["error"]
    assert (line is not None) == bool(fault.named), line
    assert outcome["seconds"] < SECONDS
    for word in (repo, *fault.named) if line else ():
        assert word in line
    assert line is None or line.isprintable()


def test_upload_that_nobody_reads_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "ANSWER", 0.05)  # times 10 s
    with socket.create_server(("127.0.0.1", 0)) as server, transport.Client() as http:
        began = time.monotonic()
        with pytest.raises(transport.Stalled):
            http.put(
                f"http://127.0.0.1:{server.getsockname()[1]}", content=(bytes(10**6) for _ in range(100)), timeout=None
            )
        assert time.monotonic() - began < 20


@pytest.mark.parametrize(("rate", "passes"), [(transport.SLOWEST * 2, True), (transport.SLOWEST / 2, False)])
def test_watch_tells_slow_from_stalled(rate: float, passes: bool) -> None:
    watch = transport._Watch(limit=10)

    def move() -> None:
        for _ in range(100):
            watch.add(seconds=0.5, moved=int(rate / 2))

    if passes:
        move()
    else:
        with pytest.raises(transport.Stalled):
            move()


def test_time_outs_of_the_caller_are_kept() -> None:
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append((request.extensions["timeout"]["connect"], request.extensions["timeout"]["read"]))
        return httpx2.Response(200)

    with transport.Client(transport=httpx2.MockTransport(answer)) as http:
        http.get("http://hub", timeout=3)
        http.get("http://hub", timeout=None)
    assert seen == [(3, 3), (10, transport.ANSWER * 10)]
