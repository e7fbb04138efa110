"""Reading from a folder or the Hugging Face Hub, file by file, by digest; what the Hub refuses, in one line.

Withheld actions stay local unless they are asked for. The manifest is the same either way, so folder and repository
share one digest: a repository without them is whole, and only who asks for a withheld file learns that it is absent.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from httpx2 import TimeoutException
from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from lawm_data import files, shards, transport
from lawm_data.cache import hold, make_room
from lawm_data.errors import Missing, UserError, reason
from lawm_data.manifest import MAX_BYTES, NAME, FileEntry, Manifest

AGAIN = "run the same command again, it continues where it was"
_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>\S+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_checked: set[tuple[str, str, tuple[int, int] | None]] = set()


@dataclass(frozen=True)
class Folder:
    """A dataset folder, read in place; otherwise like `Remote`."""

    path: Path
    manifest: Manifest
    repo: None = None
    revision: None = None

    def pull(self, path: str) -> Path:
        """The file itself, its size and sha256 compared with the manifest; UserError where they differ."""
        return checked(self.path / path, self.manifest.files[path])

    def describe(self) -> str:
        return f"dataset folder {self.path}"


@dataclass(frozen=True)
class Remote:
    """A dataset repository pinned to one commit. Nothing is downloaded before it is asked for.

    follows: True where no revision was named, so that the commit is the one that main was at.
    """

    repo: str
    revision: str
    manifest: Manifest
    cache: Path | None
    follows: bool = False

    def at(self, revision: str) -> Remote:
        """The same repository at another commit."""
        return pin(self.repo, revision, self.cache)

    def pull(self, path: str) -> Path:
        """The local copy of `path`, downloaded unless cached, with the size and sha256 of the manifest.

        A file that differs is removed from the cache and reported (UserError).
        """
        entry = self.manifest.files[path]
        found = download(self.repo, self.revision, path, entry.bytes, self._why_absent(path), cache=self.cache)
        try:
            return checked(found, entry)
        except UserError:
            remove(found)
            raise UserError(
                f"{self.repo}: {path} at commit {self.revision[:8]} is not the file that {NAME} describes (size or "
                "sha256); none of it was used. Run again to fetch it anew; if this repeats, push the dataset again"
            ) from None

    def describe(self) -> str:
        return f"Hub dataset {self.repo} at commit {self.revision[:8]}"

    def _why_absent(self, path: str) -> str:
        if path in self.manifest.withheld:
            return f"{path} was not published; push --with-actions, or train from the dataset folder"
        return f"{path} is named in {NAME} but is not there; push the dataset again"


Source = Folder | Remote
"""Both have `repo` and `revision`, name on the Hub and commit, which are None for a folder."""


def open_source(where: str, cache: Path | None = None) -> Source:
    """A dataset folder, or `org/name[@revision]` on the Hub; a folder that holds lawm.json wins.

    Only the manifest is read or fetched. `cache` is where Hub files go (default: huggingface_hub's cache).
    """
    folder = Path(where)
    if (folder / NAME).is_file():
        return Folder(folder, Manifest.load(folder))
    hub_id = parse_id(where)
    if folder.exists() or not hub_id:
        state = f"a path without {NAME}" if folder.exists() else "no folder and no Hub id (org/name or org/name@v1)"
        raise UserError(f"{where}: {state}, so no dataset; name a folder that `lawm-data split` wrote")
    try:
        return pin(*hub_id, cache)
    except UserError as error:
        raise type(error)(f"{error}; a folder {where} is not here either") from None


def pin(repo: str, revision: str | None = None, cache: Path | None = None) -> Remote:
    """Resolve a branch, tag or commit (default: the head of main) once; all is read at that commit.

    A full commit sha needs no look-up: a cached dataset then opens without a network. `cache` defaults to
    huggingface_hub's own.
    """
    commit = resolve(repo, revision)
    absent = f"holds no {NAME}, so it was not made by `lawm-data push`"
    with session(repo):
        new = try_to_load_from_cache(repo, NAME, cache, commit, "dataset") is None
    while not hold(path := download(repo, commit, NAME, MAX_BYTES, absent, cache=cache)):
        new = True  # another process removed it between the two, to make room
    remote = Remote(repo, commit, Manifest.read(path, f"{repo}/{NAME}"), cache, follows=revision is None)
    if new:
        published = remote.manifest.files.keys() - remote.manifest.withheld
        entries = (remote.manifest.files[name] for name in published)
        make_room(cache, path.resolve().parent, {entry.sha256: entry.bytes for entry in entries})
    return remote


def parse_id(where: str) -> tuple[str, str | None] | None:
    """(repository, revision) of `org/name[@revision]`, None for what is no such id."""
    found = _HUB_ID.fullmatch(where)
    return (found["repo"], found["revision"]) if found else None


def resolve(repo: str, revision: str | None, kind: str = "dataset") -> str:
    """The commit that a branch, tag or full sha names now; `kind` is dataset or model."""
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    with session(repo, kind):
        api = HfApi()
        return str(transport.patiently(lambda: api.repo_info(repo, revision=revision, repo_type=kind)).sha)


def download(
    repo: str, commit: str, path: str, most: int, absent: str, *, kind: str = "dataset", cache: Path | None = None
) -> Path:
    """One file at one commit, from the cache if it is there; `absent` is what to say where the repository has none.

    Missing where it has none; UserError before the download where the file is larger than `most` bytes.
    """
    where: dict[str, Any] = {"repo_type": kind, "revision": commit, "cache_dir": cache}

    def fetch() -> Path:
        size = hf_hub_download(repo, path, **where, dry_run=True).file_size
        if size > most:
            raise UserError(f"{repo}: {path} has {size} bytes, expected {most} at most; none of it was fetched")
        return Path(hf_hub_download(repo, path, **where))

    with session(repo, kind), files.user_errors(cache or Path(constants.HF_HUB_CACHE)):
        try:
            return transport.patiently(fetch)
        except RemoteEntryNotFoundError:
            raise Missing(f"{repo}: {absent}") from None


def checked(path: Path, entry: FileEntry) -> Path:
    """Return `path` if it has the size and sha256 of the manifest, else raise UserError.

    A file is hashed once per process, as long as its size and modification time stay.
    """
    status = path.stat() if path.is_file() else None
    known = (str(path), entry.sha256, status and (status.st_size, status.st_mtime_ns))
    if known not in _checked:
        shards.check_file(path, entry)
        _checked.add(known)
    return path


def forget() -> None:
    """Hash every file again, as a new process does."""
    _checked.clear()


@contextlib.contextmanager
def session(place: str, kind: str = "dataset") -> Iterator[None]:
    """Talk to the Hub with patience that ends; what it refuses, or silence, becomes one line that names `place`."""
    transport.install()
    try:
        yield
    except LocalTokenNotFoundError:
        raise UserError(f"{place}: no token; run `hf auth login`, or set HF_TOKEN") from None
    except HFValidationError:
        raise UserError(f"{place}: no name for a repository; write it as org/name") from None
    except LocalEntryNotFoundError as error:
        # hf_hub_download hides what went wrong in the cause
        raise UserError(f"{place}: {_reason(error.__cause__, kind)}") from None
    except json.JSONDecodeError:
        raise UserError(
            f"{place}: {constants.ENDPOINT} did not answer as a Hub does; check HF_ENDPOINT, and whether the network "
            "asks for a login"
        ) from None
    except (HTTPError, OSError) as error:  # the latter offline, from hf_xet, and from a file that was cut off
        raise UserError(f"{place}: {_reason(error, kind)}") from None


def _reason(error: BaseException | None, kind: str) -> str:
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; unset it, or name a folder or a cached commit"
    if isinstance(error, transport.Stalled):
        return f"the transfer from or to {constants.ENDPOINT} stalled ({error}); {AGAIN}"
    if isinstance(error, TimeoutException):
        return f"{constants.ENDPOINT} did not answer in time; {AGAIN}"
    if not isinstance(error, (HTTPError, ConnectionError, TimeoutError, type(None))):
        return f"the transfer failed ({reason(error)}); {AGAIN}"
    if not isinstance(error, HfHubHTTPError):
        return f"cannot reach {constants.ENDPOINT}; check the network and HF_ENDPOINT, then {AGAIN}"
    status = error.response.status_code
    if isinstance(error, RevisionNotFoundError):
        return "has no such revision; name a branch, a tag or a full commit sha"
    if isinstance(error, RepositoryNotFoundError):
        return f"no such {kind}, or a private one; check the name, and `hf auth login` with a token that may see it"
    reasons = {
        401: "the token was not accepted, or has expired; run `hf auth login`, or set HF_TOKEN to a valid one",
        403: "the token may not do this; use one with write access to this name, or another --repo",
        409: "the Hub is at work on this repository; run again in a minute",
        412: "somebody else pushed to it meanwhile; look at that commit, then run again to replace it",
        429: "too many requests; run again in a few minutes",
    }
    said = f" ({error.server_message.splitlines()[0]})" if error.server_message else ""
    return reasons.get(status, f"the Hub answered {status}{said}; {AGAIN}")


def remove(path: Path) -> None:
    """Remove a file of the cache and every link on the way to it."""
    while path.is_symlink():
        target = path.parent / path.readlink()
        path.unlink()
        path = target
    path.unlink(missing_ok=True)
