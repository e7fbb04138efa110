"""Data that moves on the Hub under a run, and the bound of the cache that runs share."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DeleteCacheStrategy
from loopback_hub import LoopbackHub
from made_dataset import made_episodes, make_dataset
from processes import client, python

from lawm_data import cache
from lawm_data.errors import UserError

REPO = "tester/made"
TRAIN = ["--method", "bc", "--set", "agent.bc.updates=2", "--set", "train.window=8"]
TRAIN = ["-m", "lawm_train.cli", "--hub-dataset", REPO, *TRAIN]


def content(folder: Path, count: int) -> dict[str, bytes]:
    make_dataset(folder, made_episodes(count))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    with LoopbackHub(tmp_path / "hub") as running:
        yield running


def test_run_continues_with_the_commit_that_it_began_with(hub: LoopbackHub, tmp_path: Path) -> None:
    first = hub.publish(REPO, content(tmp_path / "one", 15)).sha
    root = {"LAWM_ROOT": str(tmp_path / "lawm")}
    assert python(hub, *TRAIN, **root).returncode == 0
    second = hub.publish(REPO, content(tmp_path / "two", 16)).sha
    again = python(hub, *TRAIN, **root)
    assert again.returncode == 0, again.stderr
    assert f"{REPO} has changed since this run began: it continues with commit {first[:8]}" in again.stdout
    saved = json.loads(next(tmp_path.glob("lawm/runs/*/config.json")).read_text())
    assert saved["dataset"]["revision"] == first and saved["about"]["dataset"] == REPO

    asked = [word if word != REPO else f"{REPO}@{second}" for word in TRAIN]
    refused = python(hub, *asked, **root)
    assert refused.returncode == 2 and "dataset.digest" in refused.stderr.splitlines()[-1]


def test_the_same_data_from_a_folder_and_from_the_hub_are_one_dataset(hub: LoopbackHub, tmp_path: Path) -> None:
    """Train on the folder, push it, go on with the repository: it is the same run, and so the other way round."""
    hub.publish(REPO, content(tmp_path / "one", 15))
    root, local = {"LAWM_ROOT": str(tmp_path / "lawm")}, [w if w != REPO else str(tmp_path / "one") for w in TRAIN]
    longer = ["--set", "agent.bc.updates=3"]
    for command in (local, TRAIN, [*TRAIN, *longer], [*local, *longer]):
        done = python(hub, *command, **root)
        assert done.returncode == 0, done.stderr
    (run,) = tmp_path.glob("lawm/runs/*")
    assert sum('"finished"' in line for line in (run / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_cache_whose_files_cannot_be_locked_for_writing_is_used_and_not_cleaned(tmp_path, monkeypatch) -> None:
    """NFS wants a file open for writing before it is locked for one alone (flock(2)); other systems lock nothing."""
    manifest = tmp_path / "lawm.json"
    manifest.write_text("{}")

    def refused(descriptor: int, how: int) -> None:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", refused)
    with contextlib.ExitStack() as claims:
        assert not cache._claim(manifest, claims)
    assert cache.hold(manifest)


def pulled(hub: LoopbackHub, where: str, **environment: str) -> bool:
    """Into a cache in which there is room for nothing."""
    return client(hub, "pull", where, LAWM_CACHE_GB="0", **environment)["outcomes"][where]["error"] is None


def cached(home: Path) -> set[str]:
    return {path.parent.name for path in home.glob("hub/datasets--*/snapshots/*/lawm.json")}


def test_cache_is_shared_and_bounded_and_what_is_in_use_stays(hub: LoopbackHub, tmp_path: Path) -> None:
    home = {"HF_HOME": str(tmp_path / "home")}
    old, new = (hub.publish(f"tester/{name}", content(tmp_path / name, n)).sha for name, n in (("a", 15), ("b", 16)))
    hub.publish("tester/other", {"data.arrow": bytes(10**5)})
    assert client(hub, "pull", "tester/a", **home)["outcomes"]["tester/a"]["error"] is None
    hub.requests.clear()
    assert client(hub, "pull", f"tester/a@{old}", **home)["outcomes"][f"tester/a@{old}"]["error"] is None
    assert not hub.requests, "another process reads what the first has fetched"

    (manifest,) = (tmp_path / "home").glob(f"hub/datasets--*/snapshots/{old}/lawm.json")
    cache.hold(manifest)
    assert pulled(hub, "tester/b", **home) and cached(tmp_path / "home") == {old, new}
    os.close(cache._held.pop(manifest))
    hub.publish("tester/c", content(tmp_path / "c", 17))
    assert pulled(hub, "tester/c", **home) and not cached(tmp_path / "home") & {old, new}


def test_what_is_being_removed_cannot_be_held(hub: LoopbackHub, tmp_path: Path, monkeypatch: Any) -> None:
    home, cached_at = {"HF_HOME": str(tmp_path / "home")}, tmp_path / "home" / "hub"
    for n, name in ((15, "a"), (16, "b")):
        hub.publish(f"tester/{name}", content(tmp_path / name, n))
        assert client(hub, "pull", f"tester/{name}", **home)["outcomes"][f"tester/{name}"]["error"] is None
    (manifest,) = cached_at.glob("datasets--tester--a/snapshots/*/lawm.json")
    refused = []

    def meanwhile(strategy: DeleteCacheStrategy) -> None:
        with open(manifest) as another, pytest.raises(BlockingIOError):
            fcntl.flock(another, fcntl.LOCK_SH | fcntl.LOCK_NB)
        refused.append(manifest)
        executed(strategy)

    executed = DeleteCacheStrategy.execute
    monkeypatch.setattr(DeleteCacheStrategy, "execute", meanwhile)
    monkeypatch.setenv(cache.LIMIT, "0")
    cache.make_room(cached_at, cached_at, {})
    assert refused and not manifest.exists() and not cache.hold(manifest)


def test_what_was_used_last_is_removed_last(hub: LoopbackHub, tmp_path: Path, monkeypatch: Any) -> None:
    """Whatever the file system notes of reading, and although nothing of it is fetched again."""
    home, cached_at = {"HF_HOME": str(tmp_path / "home")}, tmp_path / "home" / "hub"
    shas = {name: hub.publish(f"tester/{name}", content(tmp_path / name, n)).sha for n, name in ((15, "a"), (16, "b"))}
    for name in ("a", "b", "a"):
        where = f"tester/{name}@{shas[name]}"
        assert client(hub, "pull", where, **home)["outcomes"][where]["error"] is None
    for blob in cached_at.rglob("blobs/*"):
        os.utime(blob, (0, blob.stat().st_mtime))
    found = cache.scan_cache_dir(cached_at)
    in_order = replace(found, repos=sorted(found.repos, key=lambda repo: repo.repo_id))  # which a set has not
    monkeypatch.setattr(cache, "scan_cache_dir", lambda where: in_order)
    size = sum(blob.stat().st_size for blob in cached_at.rglob("blobs/*"))
    monkeypatch.setenv(cache.LIMIT, str(size / 1e9))
    cache.make_room(cached_at, cached_at, {"new": 1})
    assert cached(tmp_path / "home") == {shas["a"]}


def test_the_same_data_in_a_new_commit_are_those_that_a_run_began_with(hub: LoopbackHub, tmp_path: Path) -> None:
    """As after `push --with-actions`, whose files the first commit lacks."""
    made = content(tmp_path / "one", 15)
    hub.publish(REPO, {path: data for path, data in made.items() if "withheld" not in path})
    root = {"LAWM_ROOT": str(tmp_path / "lawm")}
    assert python(hub, *TRAIN, **root).returncode == 0
    hub.publish(REPO, made)
    hub.requests.clear()
    again = python(hub, *TRAIN, "--set", "agent.bc.updates=3", **root)
    assert again.returncode == 0 and "has changed" not in again.stdout, again.stderr


def test_what_a_new_revision_shares_with_an_old_one_stays(hub: LoopbackHub, tmp_path: Path) -> None:
    home, made = {"HF_HOME": str(tmp_path / "home")}, content(tmp_path / "made", 15)
    first = hub.publish(REPO, made).sha
    assert client(hub, "pull", REPO, **home)["outcomes"][REPO]["error"] is None
    make_dataset(tmp_path / "made", made_episodes(15), note="a new card")
    second = hub.publish(REPO, {path: (tmp_path / "made" / path).read_bytes() for path in made}).sha
    hub.requests.clear()
    assert pulled(hub, REPO, **home) and cached(tmp_path / "home") == {first, second}
    assert not [path for method, path, _ in hub.requests if method == "GET" and path.endswith(".arrow")]


def test_bound_that_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.LIMIT, "much")
    with pytest.raises(UserError, match="LAWM_CACHE_GB is 'much', expected a number of gigabytes"):
        cache._limit()
