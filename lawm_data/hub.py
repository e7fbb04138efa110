"""The Hugging Face Hub: publish a dataset folder in one commit; read it back at one commit, file by file, by digest.

Withheld actions stay local unless they are asked for. The manifest is the same either way, so folder and repository
share one digest: a repository without them is whole, and only who asks for a withheld file learns that it is absent.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, hf_hub_download
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
from huggingface_hub.hf_api import RepoFile

from lawm_data import files, shards
from lawm_data.errors import UserError
from lawm_data.manifest import MAX_BYTES, NAME, FileEntry, Manifest, folder_name

PAPER_TASKS = {"walker-walk": "lawm-walker", "cheetah-run": "lawm-cheetah", "hopper-stand": "lawm-hopper"}
_OURS_TO_KEEP = {".gitattributes"}  # the Hub's own: says which files go through LFS
_FRESH = {".gitattributes", "README.md"}  # what a repository made on the web page holds
_COMMIT = re.compile(r"[0-9a-f]{40}")
_checked: set[tuple[str, str, tuple[int, int] | None]] = set()


def repository_name(env: str) -> str:
    """`lawm-walker`, `lawm-cheetah`, `lawm-hopper` for the paper's tasks, `lawm-<domain>-<task>` for others."""
    return PAPER_TASKS.get(env, f"lawm-{folder_name(env)}")


def push(folder: Path, repo: str | None, *, private: bool, tag: str | None, with_actions: bool) -> str:
    """Make the dataset repository hold exactly what this folder publishes, in one commit; return the commit's sha.

    The folder is verified before, the repository after; where nothing differs no commit is made. UserError when the
    folder is no valid dataset, the repository is not ours to overwrite, or somebody else pushed meanwhile.
    """
    click.echo(f"{folder}: verified, {shards.verify(folder)}")
    manifest = Manifest.load(folder)
    published = _published(folder, manifest, with_actions)
    api = HfApi()
    with told("Hugging Face Hub"):
        repo = repo or f"{api.whoami()['name']}/{repository_name(manifest.env)}"
    with told(repo):
        head = _open(api, repo, private)
        remote = _tree(api, repo, head)
        _refuse_foreign(repo, head, remote, manifest.env)
        plan = _Plan.between(folder, published, remote)
        tagged = tag is not None and _is_tagged(api, repo, tag, None if plan.changes else head)
        commit = _commit(api, folder, repo, head, plan) if plan.changes else head
        click.echo(f"{repo}: commit {commit}" if plan.changes else f"{repo}: nothing has changed, no commit made")
        if tag is not None and not tagged:
            api.create_tag(repo, tag=tag, revision=commit, repo_type="dataset")
    click.echo(f"next: lawm-train --hub-dataset {repo}{f'@{tag}' if tag else ''}")
    return commit


@dataclass(frozen=True)
class Remote:
    """A dataset repository pinned to one commit. Nothing is downloaded before it is asked for."""

    repo: str
    revision: str
    manifest: Manifest
    cache: Path | None

    def pull(self, path: str) -> Path:
        """The local copy of `path`, downloaded unless cached, with the size and sha256 of the manifest.

        A file that differs is removed from the cache and reported (UserError).
        """
        entry = self.manifest.files[path]
        found = _download(self.repo, self.revision, path, self.cache, self._why_absent(path), entry.bytes)
        try:
            return checked(found, entry)
        except UserError:
            _remove(found)
            raise UserError(
                f"{self.repo}: {path} at commit {self.revision[:8]} is not the file that {NAME} describes (size or "
                "sha256); none of it was used. Run again to fetch it anew; if this repeats, push the dataset again"
            ) from None

    def describe(self) -> str:
        return f"Hub dataset {self.repo} at commit {self.revision[:8]}"

    def _why_absent(self, path: str) -> str:
        if path in _withheld(self.manifest):
            return f"{path} was not published; push --with-actions, or train from the dataset folder"
        return f"{path} is named in {NAME} but is not there; push the dataset again"


def pin(repo: str, revision: str | None = None, cache: Path | None = None) -> Remote:
    """Resolve a branch, tag or commit (default: the head of main) once; all is read at that commit.

    A full commit sha needs no look-up: a cached dataset then opens without a network. `cache` defaults to
    huggingface_hub's own.
    """
    with told(repo):
        known = revision is not None and _COMMIT.fullmatch(revision)
        commit = str(revision if known else HfApi().dataset_info(repo, revision=revision).sha)
    absent = f"holds no {NAME}, so it was not made by `lawm-data push`"
    path = _download(repo, commit, NAME, cache, absent, MAX_BYTES)
    return Remote(repo, commit, Manifest.read(path, f"{repo}/{NAME}"), cache)


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


@contextlib.contextmanager
def told(place: str) -> Iterator[None]:
    """Turn what the Hub refuses, or silence, into one line that names `place` and what to do."""
    try:
        yield
    except LocalTokenNotFoundError:
        raise UserError(f"{place}: no token; run `hf auth login`, or set HF_TOKEN") from None
    except HFValidationError:
        raise UserError(f"{place}: no name for a repository; write it as org/name") from None
    except OfflineModeIsEnabled:
        raise UserError(f"{place}: HF_HUB_OFFLINE is set; unset it, or name a folder or a cached commit") from None
    except LocalEntryNotFoundError as error:
        # hf_hub_download hides what went wrong in the cause
        raise UserError(f"{place}: {_reason(error.__cause__)}") from None
    except (HTTPError, ConnectionError, TimeoutError) as error:  # the latter two from hf_xet
        raise UserError(f"{place}: {_reason(error)}") from None


def _reason(error: BaseException | None) -> str:
    if not isinstance(error, HfHubHTTPError):
        return f"cannot reach {constants.ENDPOINT}; check the network and HF_ENDPOINT, then run again"
    status = error.response.status_code
    if isinstance(error, RevisionNotFoundError):
        return "has no such revision; name a branch, a tag or a full commit sha"
    if isinstance(error, RepositoryNotFoundError):
        return "no such dataset, or a private one; check the name, and `hf auth login` with a token that may see it"
    reasons = {
        401: "the token was not accepted; run `hf auth login`, or set HF_TOKEN to a valid one",
        403: "the token may not do this; use one with write access to this name, or another --repo",
        409: "the Hub is at work on this repository; run again in a minute",
        412: "somebody else pushed to it meanwhile; look at that commit, then run again to replace it",
        429: "too many requests; run again in a few minutes",
    }
    said = f" ({error.server_message.splitlines()[0]})" if error.server_message else ""
    return reasons.get(status, f"the Hub answered {status}{said}; run again later")


@dataclass(frozen=True)
class _Plan:
    """What turns the repository into the published files: paths to upload and delete; `local` is the goal."""

    local: dict[str, FileEntry]
    upload: list[str]
    delete: list[str]

    @classmethod
    def between(cls, folder: Path, local: dict[str, FileEntry], remote: dict[str, RepoFile]) -> _Plan:
        upload = [path for path in sorted(local) if not _same(folder / path, local[path], remote.get(path))]
        return cls(local, upload, sorted(remote.keys() - local.keys() - _OURS_TO_KEEP))

    @property
    def changes(self) -> bool:
        return bool(self.upload or self.delete)

    def announce(self, repo: str) -> None:
        size = sum(self.local[path].bytes for path in self.upload)
        there = len(self.local) - len(self.upload)
        click.echo(f"{repo}: {len(self.upload)} files to upload ({size / 1e6:.1f} MB), {there} are there already")
        for path in self.delete:
            click.echo(f"{repo}: deleting {path}, which this push does not publish")


def _open(api: HfApi, repo: str, private: bool) -> str:
    """Create the repository if need be; the sha of its head."""
    if repo.count("/") != 1:
        raise UserError(f"{repo}: no name for a repository; write it as org/name")
    api.create_repo(repo, repo_type="dataset", private=private or None, exist_ok=True)
    information = api.dataset_info(repo)
    if private and not information.private:
        raise UserError(f"{repo}: exists and is public; make it private in its settings, or name another with --repo")
    return str(information.sha)


def _tree(api: HfApi, repo: str, commit: str) -> dict[str, RepoFile]:
    listed = api.list_repo_tree(repo, recursive=True, revision=commit, repo_type="dataset")
    return {item.path: item for item in listed if isinstance(item, RepoFile)}


def _refuse_foreign(repo: str, head: str, remote: dict[str, RepoFile], env: str) -> None:
    """What is not a dataset of this env is not ours to overwrite."""
    if NAME not in remote:
        if others := sorted(remote.keys() - _FRESH):
            raise UserError(
                f"{repo}: holds {others[0]} but no {NAME}, so it was not made by this command; name another with "
                "--repo, or empty it first"
            )
        return
    found = files.read_json(_download(repo, head, NAME, None, f"{NAME} has vanished; run again", MAX_BYTES))
    other = found.get("env") if isinstance(found, dict) else None
    if other != env:
        raise UserError(f"{repo}: holds a dataset of {other}, not of {env}; name another with --repo")


def _is_tagged(api: HfApi, repo: str, tag: str, commit: str | None) -> bool:
    """Whether `tag` is on `commit`; UserError where it is on another."""
    tags = {found.name: found.target_commit for found in api.list_repo_refs(repo, repo_type="dataset").tags}
    if tag in tags and tags[tag] != commit:
        raise UserError(f"{repo}: tag {tag} exists already, on other content; choose another --tag")
    return tag in tags


def _withheld(manifest: Manifest) -> set[str]:
    return {path for _, split, path in manifest.shards() if split == "withheld"}


def _published(folder: Path, manifest: Manifest, with_actions: bool) -> dict[str, FileEntry]:
    """Every file that a push publishes, the manifest included."""
    kept_back = set() if with_actions else _withheld(manifest)
    for name in sorted(manifest.files.keys() - kept_back):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder / name}: not there, so it cannot be published; split again, or omit --with-actions"
            )
    path = folder / NAME
    itself = {NAME: FileEntry(files.sha256(path), path.stat().st_size, 0)}
    return itself | {path: entry for path, entry in manifest.files.items() if path not in kept_back}


def _same(path: Path, entry: FileEntry, remote: RepoFile | None) -> bool:
    if remote is None or remote.size != entry.bytes:
        return False
    if remote.lfs is not None:
        return remote.lfs.sha256 == entry.sha256
    data = path.read_bytes()
    return remote.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # git's name of the content


def _commit(api: HfApi, folder: Path, repo: str, head: str, plan: _Plan) -> str:
    """Commit the plan on top of `head`, then compare the repository with the folder."""
    plan.announce(repo)
    additions = [CommitOperationAdd(path, folder / path) for path in plan.upload]
    deletions = [CommitOperationDelete(path, is_folder=False) for path in plan.delete]
    message = f"lawm-data push: {len(additions)} files added or changed, {len(deletions)} deleted"
    commit = api.create_commit(
        repo, [*additions, *deletions], commit_message=message, repo_type="dataset", parent_commit=head
    ).oid
    left = _Plan.between(folder, plan.local, _tree(api, repo, commit))
    if left.changes:
        raise UserError(f"{repo}: commit {commit[:8]} differs in {(left.upload + left.delete)[0]}; push again")
    return commit


def _download(repo: str, commit: str, path: str, cache: Path | None, absent: str, most: int) -> Path:
    """One file at one commit, from the cache if it is there; `absent` is what to say where the repository has none.

    UserError before the download where the file is larger than `most` bytes.
    """
    with told(repo), files.told_if_full(cache or Path(constants.HF_HUB_CACHE)):
        try:
            where: dict[str, Any] = {"repo_type": "dataset", "revision": commit, "cache_dir": cache}
            size = hf_hub_download(repo, path, **where, dry_run=True).file_size
            if size > most:
                raise UserError(f"{repo}: {path} has {size} bytes, expected {most} at most; none of it was fetched")
            return Path(hf_hub_download(repo, path, **where))
        except RemoteEntryNotFoundError:
            raise UserError(f"{repo}: {absent}") from None


def _remove(path: Path) -> None:
    """Remove a file of the cache and every link on the way to it."""
    while path.is_symlink():
        target = path.parent / path.readlink()
        path.unlink()
        path = target
    path.unlink(missing_ok=True)
