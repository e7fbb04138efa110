"""The bound of the cache of downloaded datasets, which is huggingface_hub's own and shared by all runs.

A revision that is new to the cache makes room for itself: revisions of this project's datasets that no process has
open are removed, least recently used first, until all of them fit. What other programs have cached is let be.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
from collections.abc import Mapping
from pathlib import Path

import click
from huggingface_hub import CachedRevisionInfo, CacheNotFound, constants, scan_cache_dir

from lawm_data.errors import UserError
from lawm_data.manifest import NAME

LIMIT = "LAWM_CACHE_GB"
DEFAULT_GB = 50.0
_held: dict[Path, int] = {}


def hold(manifest: Path) -> bool:
    """Lock the revision that holds this lawm.json against removal until this process ends; False if it is gone."""
    if manifest not in _held:
        try:
            descriptor = os.open(manifest, os.O_RDONLY)
        except FileNotFoundError:
            return False
        with contextlib.suppress(OSError):  # where files cannot be locked, `make_room` cannot claim any either
            fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits for one that is removing it
        if not manifest.exists():
            os.close(descriptor)
            return False
        _held[manifest] = descriptor
        with contextlib.suppress(OSError):  # a cache that may only be read
            os.utime(descriptor)
    return True


def make_room(cache: Path | None, blobs_folder: Path, needed: Mapping[str, int]) -> None:
    """Remove revisions until a new one of a repository keeps within LAWM_CACHE_GB, or none is left that may go.

    blobs_folder: where its repository's contents lie, by sha256; needed: bytes by sha256. What an older revision has of
    them is neither fetched again nor removed.
    """
    try:
        found = scan_cache_dir(cache or constants.HF_HUB_CACHE)
    except CacheNotFound:
        return
    ours = [
        (revision, manifest)
        for repo in found.repos
        if repo.repo_type == "dataset"
        for revision in repo.revisions
        if (manifest := revision.snapshot_path / NAME).is_file()
    ]
    kept = {revision: _blobs(revision) for revision, _ in ours}
    wanted = {blobs_folder / sha256: size for sha256, size in needed.items()}
    doomed = []
    with contextlib.ExitStack() as claims:
        for revision, manifest in sorted(ours, key=lambda pair: _last_used(pair[1])):
            there = wanted | {path: size for blobs in kept.values() for path, size in blobs.items()}  # shared ones once
            needless = sum(there.values()) > _limit() and not wanted.keys() & kept[revision].keys()
            if needless and _claim(manifest, claims):
                doomed.append(revision.commit_hash)
                del kept[revision]
        if doomed:
            strategy = found.delete_revisions(*doomed)
            click.echo(f"cache: removing {len(doomed)} revisions not used lately ({strategy.expected_freed_size_str})")
            strategy.execute()


def _blobs(revision: CachedRevisionInfo) -> dict[Path, int]:
    return {file.blob_path: file.size_on_disk for file in revision.files}


def _limit() -> float:
    given = os.environ.get(LIMIT, str(DEFAULT_GB))
    try:
        gigabytes = float(given)
    except ValueError:
        gigabytes = math.nan
    if not gigabytes >= 0:
        raise UserError(f"{LIMIT} is '{given}', expected a number of gigabytes")
    return gigabytes * 1e9


def _last_used(manifest: Path) -> float:
    """When `hold` was last asked for it: most file systems no longer note when a file was read."""
    with contextlib.suppress(FileNotFoundError):  # another process is removing it
        return manifest.stat().st_mtime
    return 0.0


def _claim(manifest: Path, claims: contextlib.ExitStack) -> bool:
    """Lock the revision for removal until `claims` are closed, so that no process can `hold` it meanwhile.

    False where a process holds it or has removed it, and where the file system (NFS) does not lock what is open for
    reading.
    """
    try:
        descriptor = os.open(manifest, os.O_RDONLY)
        claims.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
