"""A Hugging Face Hub on 127.0.0.1: real commits, tags, LFS uploads and private repositories, no account, no network.

    with LoopbackHub(folder) as hub:
        subprocess.run(["lawm-data", "push"], env={**os.environ, **hub.environment()})

It answers the routes that huggingface_hub and `datasets` call, in the forms that they read, and shows that our calls
are well formed; it cannot show that the real service accepts them. File contents lie in `folder/objects/<sha256>`;
repositories and commits live as long as the server.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from loopback_http import Request, Response, Server, as_json, ranged

USER = "tester"
TOKEN = "hf_test"  # may write
SECRET = "hf_XqNeedleInAHaystack7"  # may write; found nowhere else
READ_TOKEN = "hf_read"  # may only read
LFS_SUFFIXES = (".arrow", ".parquet", ".png", ".safetensors")
GITATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()


@dataclass(frozen=True)
class StoredFile:
    """One file of a commit: its content's sha256 and size, its git blob id, and whether it went through LFS."""

    sha256: str
    size: int
    blob_id: str
    lfs: bool

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.blob_id


@dataclass(frozen=True)
class Commit:
    sha: str
    parent: str | None
    summary: str
    files: dict[str, StoredFile]


@dataclass
class Repository:
    kind: str  # models | datasets | spaces
    name: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def add(self, files: dict[str, StoredFile], summary: str, branch: str = "main") -> Commit:
        parent = self.branches.get(branch)
        content = [self.name, parent, summary, sorted((path, file.sha256) for path, file in files.items())]
        sha = hashlib.sha1(json.dumps(content).encode()).hexdigest()
        self.commits[sha] = Commit(sha, parent, summary, files)
        self.branches[branch] = sha
        return self.commits[sha]


class HubError(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code

    def response(self) -> Response:
        code = {"X-Error-Code": self.code} if self.code else {}
        return as_json({"error": str(self)}, self.status, {"X-Error-Message": str(self), **code})


def git_blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


Route = tuple[str, re.Pattern[str], Callable[..., Response]]
ROUTES: list[Route] = []
REPO = r"(?P<name>[^/]+/[^/]+)"
API = rf"/api/(?P<kind>models|datasets|spaces)/{REPO}"


def route(methods: str, pattern: str) -> Callable[[Callable[..., Response]], Callable[..., Response]]:
    """Answer `methods` (several with a space between) on paths that match `pattern`; its groups become arguments."""

    def register(function: Callable[..., Response]) -> Callable[..., Response]:
        ROUTES.extend((method, re.compile(pattern), function) for method in methods.split())
        return function

    return register


class LoopbackHub:
    """The server, running while it is entered.

    `requests` logs (method, path, status). `fault`, where set, sees every request first and may answer in the Hub's
    place; `spoil` sees every answer last and may change it. `storage`: another server that LFS downloads are sent to.
    `page`: files to a page of a tree. `xet`: hf_xet's local store, where LFS contents then lie by their `xet_hashes`.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = Path(folder)
        self.objects = self.folder / "objects"
        self.objects.mkdir(parents=True, exist_ok=True)
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[tuple[str, str, int]] = []
        self.fault: Callable[[Request], Response | None] | None = None
        self.spoil: Callable[[Request, Response], Response] | None = None
        self.storage: Server | None = None
        self.page = 1000
        self.xet: Path | None = None
        self.xet_hashes: dict[str, str] = {}
        self.lock = threading.Lock()
        self.server = Server(self.answer, port)
        self.url = self.server.url

    def __enter__(self) -> LoopbackHub:
        self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__()

    def environment(self, home: Path | None = None, token: str | None = TOKEN) -> dict[str, str]:
        """Variables that make a client process talk to this Hub alone; an empty token is no token."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": token or "",
            "HF_HOME": str(home or self.folder / "home"),
            "HF_HUB_DISABLE_XET": "0" if self.xet else "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
        }

    def dataset(self, name: str) -> Repository:
        return self.repositories["datasets", name]

    def files(self, name: str, revision: str = "main") -> dict[str, StoredFile]:
        return self.commit(self.dataset(name), revision).files

    def answer(self, request: Request) -> Response:
        response = self.fault(request) if self.fault else None
        if response is None:
            try:
                response = self._dispatch(request)
            except HubError as error:
                response = error.response()
        self.requests.append((request.method, request.path, response.status))
        return self.spoil(request, response) if self.spoil else response

    def _dispatch(self, request: Request) -> Response:
        if request.token not in (None, TOKEN, SECRET, READ_TOKEN):
            raise HubError(401, "Invalid credentials in Authorization header")
        for method, pattern, function in ROUTES:
            match = pattern.fullmatch(request.path)
            if match and method == request.method:
                arguments = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
                with self.lock:
                    return function(self, request, **arguments)
        raise HubError(404, f"no route for {request.method} {request.path}")

    def repository(self, request: Request, kind: str, name: str) -> Repository:
        """The repository, if this request may see it: a private one without a token is as good as absent."""
        found = self.repositories.get((kind, name))
        if found is None or (found.private and request.token is None):
            raise HubError(404 if request.token else 401, "Repository not found", "RepoNotFound")
        return found

    def writable(self, request: Request, kind: str, name: str) -> Repository:
        may_write(request)
        return self.repository(request, kind, name)

    def commit(self, repository: Repository, revision: str) -> Commit:
        sha = repository.branches.get(revision) or repository.tags.get(revision) or revision
        if sha not in repository.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return repository.commits[sha]

    def publish(self, name: str, content: dict[str, bytes], kind: str = "datasets") -> Commit:
        """A commit of exactly these files on main, made without a client."""
        repository = self.repositories.setdefault((kind, name), Repository(kind, name, private=False))
        files = {path: self.store(data, lfs=path.endswith(LFS_SUFFIXES)) for path, data in content.items()}
        return repository.add(files, "published")

    def store(self, data: bytes, lfs: bool) -> StoredFile:
        digest = hashlib.sha256(data).hexdigest()
        (self.objects / digest).write_bytes(data)
        return StoredFile(digest, len(data), git_blob_id(data), lfs)


def may_write(request: Request) -> None:
    if request.token is None:
        raise HubError(401, "Invalid username or password.")
    if request.token not in (TOKEN, SECRET):
        raise HubError(403, "You have read access but not the required permissions for this operation")


@route("GET", "/api/whoami-v2")
def whoami(hub: LoopbackHub, request: Request) -> Response:
    if request.token is None:
        raise HubError(401, "Invalid username or password.")
    role = "read" if request.token == READ_TOKEN else "write"
    return as_json({"type": "user", "name": USER, "orgs": [], "auth": {"accessToken": {"role": role}}})


@route("POST", "/api/validate-yaml")
def validate_yaml(hub: LoopbackHub, request: Request) -> Response:
    return as_json({"errors": [], "warnings": []})


@route("POST", "/api/repos/create")
def create_repository(hub: LoopbackHub, request: Request) -> Response:
    may_write(request)
    wanted = json.loads(request.body)
    name = f"{wanted.get('organization') or USER}/{wanted['name']}"
    kind = f"{wanted.get('type') or 'model'}s"
    url = f"{hub.url}/{'' if kind == 'models' else kind + '/'}{name}"
    if (kind, name) in hub.repositories:
        return as_json({"url": url, "error": "You already created this repo"}, 409)
    private = wanted.get("private", False) or wanted.get("visibility") == "private"
    repository = hub.repositories[kind, name] = Repository(kind, name, private)
    repository.add({".gitattributes": hub.store(GITATTRIBUTES, lfs=False)}, "initial commit")
    return as_json({"url": url})


@route("GET", rf"{API}(/revision/(?P<revision>[^/]+))?")
def information(hub: LoopbackHub, request: Request, kind: str, name: str, revision: str = "main") -> Response:
    repository = hub.repository(request, kind, name)
    commit = hub.commit(repository, revision)
    siblings = [{"rfilename": path} for path in sorted(commit.files)]
    access = {"private": repository.private, "gated": False, "disabled": False}
    return as_json({"_id": name, "id": name, "sha": commit.sha, "siblings": siblings, "tags": [], **access})


@route("GET", rf"{API}/refs")
def references(hub: LoopbackHub, request: Request, kind: str, name: str) -> Response:
    repository = hub.repository(request, kind, name)

    def listed(kind: str, refs: dict[str, str]) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha} for name, sha in refs.items()]

    branches, tags = listed("heads", repository.branches), listed("tags", repository.tags)
    return as_json({"branches": branches, "tags": tags, "converts": []})


@route("GET", rf"{API}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?")
def tree(hub: LoopbackHub, request: Request, kind: str, name: str, revision: str, folder: str = "") -> Response:
    files = hub.commit(hub.repository(request, kind, name), revision).files
    recursive = request.query.get("recursive", "").lower() in ("true", "1")
    items = list(_tree_items(files, f"{folder}/" if folder else "", recursive))
    if folder and not items:
        raise HubError(404, f"{folder} does not exist", "EntryNotFound")
    start = int(request.query.get("cursor", 0))
    following = f"{hub.url}{request.path}?recursive={recursive}&cursor={start + hub.page}"
    link = {"Link": f'<{following}>; rel="next"'} if start + hub.page < len(items) else {}
    return as_json(items[start : start + hub.page], headers=link)


def _tree_items(files: dict[str, StoredFile], prefix: str, recursive: bool) -> Iterator[dict[str, Any]]:
    folders = set()
    for path, file in sorted(files.items()):
        parents = path.removeprefix(prefix).split("/")[:-1]
        if not path.startswith(prefix):
            continue
        for depth in range(1, len(parents) + 1 if recursive else min(len(parents), 1) + 1):
            folders.add(prefix + "/".join(parents[:depth]))
        if recursive or not parents:
            lfs = {"lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 134}} if file.lfs else {}
            yield {"type": "file", "path": path, "oid": file.blob_id, "size": file.size, **lfs}
    for folder in sorted(folders):
        yield {"type": "directory", "path": folder, "oid": git_blob_id(folder.encode()), "size": 0}


@route("POST", rf"{API}/preupload/(?P<revision>[^/]+)")
def preupload(hub: LoopbackHub, request: Request, kind: str, name: str, revision: str) -> Response:
    files = hub.commit(hub.writable(request, kind, name), revision).files

    def decided(path: str) -> dict[str, Any]:
        mode = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
        oid = files[path].etag if path in files else None
        return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    return as_json({"files": [decided(file["path"]) for file in json.loads(request.body)["files"]]})


@route("POST", rf"/((?P<kind>datasets|spaces)/)?{REPO}\.git/info/lfs/objects/batch")
def lfs_batch(hub: LoopbackHub, request: Request, name: str, kind: str = "models") -> Response:
    hub.writable(request, kind, name)

    def instructions(wanted: dict[str, Any]) -> dict[str, Any]:
        known = {"oid": wanted["oid"], "size": wanted["size"]}
        if (hub.objects / wanted["oid"]).exists():
            return known  # no actions: already there
        actions = {"upload": f"{hub.url}/lfs/{wanted['oid']}", "verify": f"{hub.url}/lfs-verify"}
        return {**known, "actions": {action: {"href": url} for action, url in actions.items()}}

    objects = [instructions(wanted) for wanted in json.loads(request.body)["objects"]]
    return as_json({"transfer": "basic", "objects": objects})


@route("PUT", "/lfs/(?P<oid>[0-9a-f]{64})")
def lfs_upload(hub: LoopbackHub, request: Request, oid: str) -> Response:
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise HubError(400, f"content does not match {oid}")
    hub.store(request.body, lfs=True)
    return Response(200)


@route("POST", "/lfs-verify")
def lfs_verify(hub: LoopbackHub, request: Request) -> Response:
    claimed = json.loads(request.body)
    path = hub.objects / claimed["oid"]
    if not path.exists() or path.stat().st_size != claimed["size"]:
        raise HubError(422, f"{claimed['oid']} was not uploaded whole")
    return as_json({})


@route("POST", rf"{API}/commit/(?P<revision>[^/]+)")
def add_commit(hub: LoopbackHub, request: Request, kind: str, name: str, revision: str) -> Response:
    repository = hub.writable(request, kind, name)
    header, *operations = [json.loads(line) for line in request.body.splitlines() if line.strip()]
    head = hub.commit(repository, revision)
    parent = header["value"].get("parentCommit")
    if parent is not None and parent != head.sha:
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    files = dict(head.files)
    for operation in operations:
        _apply(hub, files, operation["key"], operation["value"])
    commit = repository.add(files, header["value"]["summary"], revision)
    url = f"{hub.url}/{kind}/{name}/commit/{commit.sha}"
    return as_json({"commitUrl": url, "commitOid": commit.sha, "success": True, "hookOutput": ""})


def _apply(hub: LoopbackHub, files: dict[str, StoredFile], operation: str, value: dict[str, Any]) -> None:
    path = value["path"]
    if operation == "file":
        files[path] = hub.store(base64.b64decode(value["content"]), lfs=False)
    elif operation == "lfsFile":
        content = hub.objects / value["oid"]
        if not content.exists() and not hub.xet:
            raise HubError(400, f"{path}: LFS object {value['oid']} was never uploaded")
        blob_id = git_blob_id(f"pointer to {value['oid']}".encode())
        files[path] = StoredFile(value["oid"], value["size"], blob_id, lfs=True)
    elif operation == "deletedFile":
        if path not in files:
            raise HubError(400, f"{path}: no such file to delete")
        del files[path]
    elif operation == "deletedFolder":
        for inside in [known for known in files if known.startswith(path.rstrip("/") + "/")]:
            del files[inside]
    else:
        raise HubError(400, f"unknown operation {operation}")


@route("POST", rf"{API}/tag/(?P<revision>[^/]+)")
def add_tag(hub: LoopbackHub, request: Request, kind: str, name: str, revision: str) -> Response:
    repository = hub.writable(request, kind, name)
    tag = json.loads(request.body)["tag"]
    if tag in repository.tags:
        raise HubError(409, f"Tag {tag} already exists")
    repository.tags[tag] = hub.commit(repository, revision).sha
    return as_json({})


@route("GET HEAD", rf"/((?P<kind>datasets|spaces)/)?{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
def resolve(hub: LoopbackHub, request: Request, name: str, revision: str, path: str, kind: str = "models") -> Response:
    commit = hub.commit(hub.repository(request, kind, name), revision)
    if path not in commit.files:
        raise HubError(404, "Entry not found", "EntryNotFound")
    file = commit.files[path]
    headers = {"ETag": f'"{file.etag}"', "X-Repo-Commit": commit.sha}
    if file.lfs:
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
    if file.lfs and hub.xet:
        refresh = f"{hub.url}/api/{kind}/{name}/xet-read-token/{commit.sha}"
        return Response(200, b"", headers | {"X-Xet-Hash": hub.xet_hashes[file.sha256], "X-Xet-Refresh-Route": refresh})
    if file.lfs and hub.storage:
        return Response(302, b"", headers | {"Location": f"{hub.storage.url}/{file.sha256}"})
    return ranged(request, (hub.objects / file.sha256).read_bytes(), headers)


@route("GET", rf"{API}/xet-(?P<access>read|write)-token/(?P<revision>.+)")
def xet_token(hub: LoopbackHub, request: Request, kind: str, name: str, access: str, revision: str) -> Response:
    if access == "write":
        may_write(request)
    given = {"casUrl": f"local://{hub.xet}", "accessToken": "xet_token", "exp": 2**33}
    headers = dict(zip(("X-Xet-Cas-Url", "X-Xet-Access-Token", "X-Xet-Token-Expiration"), given.values(), strict=True))
    return as_json(given, headers={key: str(value) for key, value in headers.items()})
