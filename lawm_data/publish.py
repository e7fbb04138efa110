"""Publishing to the Hugging Face Hub: a repository is made to hold exactly the given files, in one commit.

Readers see what was there before or what is there now, never a mixture; an interrupted push published nothing, and
what it uploaded is not sent again.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.hf_api import RepoFile

from lawm_data import files, hub, shards
from lawm_data.errors import UserError
from lawm_data.manifest import MAX_BYTES, NAME, SCHEMA_VERSION, FileEntry, Manifest, folder_name
from lawm_data.transport import patiently

Operation = CommitOperationAdd | CommitOperationDelete
PAPER_TASKS = {"walker-walk": "lawm-walker", "cheetah-run": "lawm-cheetah", "hopper-stand": "lawm-hopper"}
_KEPT_BY_THE_HUB = {".gitattributes"}  # says which files go through LFS; never deleted
_FRESH = {".gitattributes", "README.md"}  # what a repository made on the web page holds


@dataclass(frozen=True)
class Content:
    """What a repository is to hold: `files` of `folder` and nothing else.

    kind: dataset or model; marker: the JSON file, of this schema_version, that says what a repository holds; same: keys
    and values that the marker of a repository must share with ours, or the push is refused.
    """

    folder: Path
    files: dict[str, FileEntry]
    kind: str
    marker: str
    schema_version: int
    same: dict[str, Any]


def repository_name(env: str) -> str:
    """`lawm-walker`, `lawm-cheetah`, `lawm-hopper` for the paper's tasks, `lawm-<domain>-<task>` for others."""
    return PAPER_TASKS.get(env, f"lawm-{folder_name(env)}")


def push(folder: Path, repo: str | None, *, private: bool, tag: str | None, with_actions: bool) -> str:
    """Make the dataset repository hold exactly what this folder publishes; return the commit's sha.

    UserError when the folder is no valid dataset, and as `publish`.
    """
    click.echo(f"{folder}: verified, {shards.verify(folder)}")
    manifest = Manifest.load(folder)
    published, same = _published(folder, manifest, with_actions), {"env": manifest.env}
    content = Content(folder, published, "dataset", NAME, SCHEMA_VERSION, same)
    repo = repo or f"{user()}/{repository_name(manifest.env)}"
    commit = publish(content, repo, private=private, tag=tag)
    click.echo(f"next: lawm-train --hub-dataset {repo}{f'@{tag}' if tag else ''}")
    return commit


def user() -> str:
    """The name that the token belongs to."""
    with hub.session("Hugging Face Hub"):
        return patiently(HfApi().whoami)["name"]


def publish(content: Content, repo: str, *, private: bool, tag: str | None) -> str:
    """Make `repo` hold exactly `content`, in one commit, and compare it afterwards; return the commit's sha.

    Where nothing differs no commit is made. UserError when the repository is not ours to overwrite, or somebody else
    pushed meanwhile.
    """
    with hub.session(repo, content.kind):
        target = _Repository(HfApi(), repo, content.kind)
        head = target.open(private)
        remote = target.tree(head)
        _refuse_foreign(target, head, remote, content)
        plan = _Plan.between(content, remote)
        tagged = tag is not None and target.is_tagged(tag, None if plan.changes else head)
        commit = _commit(target, head, plan) if plan.changes else head
        click.echo(f"{repo}: commit {commit}" if plan.changes else f"{repo}: nothing has changed, no commit made")
        if tag is not None and not tagged:
            target.api.create_tag(repo, tag=tag, revision=commit, repo_type=content.kind)
    return commit


@dataclass(frozen=True)
class _Repository:
    api: HfApi
    name: str
    kind: str

    def open(self, private: bool) -> str:
        """Create it if need be; the sha of its head."""
        if self.name.count("/") != 1:
            raise UserError(f"{self.name}: no name for a repository; write it as org/name")
        where: dict[str, Any] = {"repo_type": self.kind}
        patiently(lambda: self.api.create_repo(self.name, private=private or None, exist_ok=True, **where))
        information = patiently(lambda: self.api.repo_info(self.name, **where))
        if private and not information.private:
            raise UserError(
                f"{self.name}: exists and is public; make it private in its settings, or name another with --repo"
            )
        return str(information.sha)

    def tree(self, commit: str) -> dict[str, RepoFile]:
        """Every file at a commit, by path."""
        where: dict[str, Any] = {"recursive": True, "revision": commit, "repo_type": self.kind}
        listed = patiently(lambda: list(self.api.list_repo_tree(self.name, **where)))
        return {item.path: item for item in listed if isinstance(item, RepoFile)}

    def is_tagged(self, tag: str, commit: str | None) -> bool:
        """Whether `tag` is on `commit`; UserError where it is on another."""
        found = patiently(lambda: self.api.list_repo_refs(self.name, repo_type=self.kind)).tags
        tags = {one.name: one.target_commit for one in found}
        if tag in tags and tags[tag] != commit:
            raise UserError(f"{self.name}: tag {tag} exists already, on other content; choose another --tag")
        return tag in tags


@dataclass(frozen=True)
class _Plan:
    """What turns the repository into `content`: paths to upload and delete."""

    content: Content
    upload: list[str]
    delete: list[str]

    @classmethod
    def between(cls, content: Content, remote: dict[str, RepoFile]) -> _Plan:
        folder, local = content.folder, content.files
        upload = [path for path in sorted(local) if not _same(folder / path, local[path], remote.get(path))]
        return cls(content, upload, sorted(remote.keys() - local.keys() - _KEPT_BY_THE_HUB))

    @property
    def changes(self) -> bool:
        return bool(self.upload or self.delete)

    def announce(self, repo: str) -> None:
        size = sum(self.content.files[path].bytes for path in self.upload)
        there = len(self.content.files) - len(self.upload)
        click.echo(f"{repo}: {len(self.upload)} files to upload ({size / 1e6:.1f} MB), {there} are there already")
        for path in self.delete:
            click.echo(f"{repo}: deleting {path}, which this push does not publish")


def _refuse_foreign(target: _Repository, head: str, remote: dict[str, RepoFile], content: Content) -> None:
    """UserError where the repository was not made by this command, or holds anything but a version of `content`."""
    repo, marker = target.name, content.marker
    if marker not in remote:
        if others := sorted(remote.keys() - _FRESH):
            raise UserError(
                f"{repo}: holds {others[0]} but no {marker}, so it was not made by this command; name another with "
                "--repo, or empty it first"
            )
        return
    with tempfile.TemporaryDirectory() as apart:  # a manifest in the cache would pass for a dataset there
        absent = f"{marker} has vanished; run again"
        path = hub.download(repo, head, marker, MAX_BYTES, absent, kind=target.kind, cache=Path(apart))
        there = files.read_json(path)
    found = there if isinstance(there, dict) else {}
    version = found.get("schema_version")
    if isinstance(version, int) and version > content.schema_version:
        raise UserError(
            f"{repo}: pushed by a newer lawm (schema version {version}); update lawm, or name another --repo"
        )
    for key, own in content.same.items():
        other = found.get(key)
        if other != own:
            raise UserError(f"{repo}: holds a {target.kind} of {key} {other}, not {own}; name another with --repo")


def _published(folder: Path, manifest: Manifest, with_actions: bool) -> dict[str, FileEntry]:
    """Every file that a push publishes, the manifest included."""
    kept_back = set() if with_actions else manifest.withheld
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


def _commit(target: _Repository, head: str, plan: _Plan) -> str:
    """Commit the plan on top of `head`, then compare the repository with the content."""
    repo, content = target.name, plan.content
    plan.announce(repo)
    additions = [CommitOperationAdd(path, content.folder / path) for path in plan.upload]
    deletions = [CommitOperationDelete(path, is_folder=False) for path in plan.delete]
    message = f"push: {len(additions)} files added or changed, {len(deletions)} deleted"
    try:
        commit, lost = _create(target, [*additions, *deletions], message, head), None
    except HfHubHTTPError as error:
        if error.response.status_code != 412:
            raise
        commit, lost = hub.resolve(repo, None, target.kind), error  # perhaps it is ours, and its answer was lost
    left = _Plan.between(content, target.tree(commit))
    if left.changes and lost:
        raise lost
    if left.changes:
        raise UserError(f"{repo}: commit {commit[:8]} differs in {(left.upload + left.delete)[0]}; push again")
    return commit


def _create(target: _Repository, operations: list[Operation], message: str, head: str) -> str:
    """Commit on top of `head`; return the sha. Safe to repeat: once the head has moved the Hub refuses with 412."""
    try:
        made = patiently(
            lambda: target.api.create_commit(
                target.name, operations, commit_message=message, repo_type=target.kind, parent_commit=head
            )
        )
    except RuntimeError as error:  # huggingface_hub wraps whatever ended the upload of a file
        if isinstance(error.__cause__, (OSError, HTTPError)):
            raise error.__cause__ from None
        raise
    return made.oid
