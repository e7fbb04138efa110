"""The bound of the cache of downloaded datasets, which is huggingface_hub's own and shared by all runs.

A revision that is new to the cache makes room for itself: revisions of this project's datasets that no process has
open are removed, least recently used first, until all of them fit. What other programs have cached is let be.
"""

from __future__ import annotations

import fcntl
import math
import os
from pathlib import Path

import click
from huggingface_hub import CachedRevisionInfo, CacheNotFound, constants, scan_cache_dir

from lawm_data.errors import UserError
from lawm_data.manifest import NAME

LIMIT = "LAWM_CACHE_GB"
DEFAULT_GB = 50.0
_held: dict[Path, int] = {}


def hold(manifest: Path) -> None:
    """Keep the revision whose lawm.json this is from being removed, until this process ends."""
    if manifest not in _held:
        _held[manifest] = os.open(manifest, os.O_RDONLY)
        fcntl.flock(_held[manifest], fcntl.LOCK_SH)


def make_room(cache: Path | None, needed: int) -> None:
    """Remove revisions until `needed` bytes more keep within LAWM_CACHE_GB, or none is left that may go."""
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
    excess = sum(revision.size_on_disk for revision, _ in ours) + needed - _limit()
    doomed = []
    for revision, manifest in sorted(ours, key=lambda pair: _last_used(pair[0])):
        if excess > 0 and not _in_use(manifest):
            doomed.append(revision.commit_hash)
            excess -= revision.size_on_disk
    if doomed:
        strategy = found.delete_revisions(*doomed)
        click.echo(f"cache: removing {len(doomed)} revisions not used lately ({strategy.expected_freed_size_str})")
        strategy.execute()


def _limit() -> float:
    given = os.environ.get(LIMIT, str(DEFAULT_GB))
    try:
        gigabytes = float(given)
    except ValueError:
        gigabytes = math.nan
    if not gigabytes >= 0:
        raise UserError(f"{LIMIT} is '{given}', expected a number of gigabytes")
    return gigabytes * 1e9


def _last_used(revision: CachedRevisionInfo) -> float:
    return max((file.blob_last_accessed for file in revision.files), default=0.0)


def _in_use(manifest: Path) -> bool:
    descriptor = os.open(manifest, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
