"""What is streamed is what was written, from a folder and from the Hub; no row is used before its digest matched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_hub import LoopbackHub
from made_dataset import made_episodes, make_dataset
from stream_client import fingerprints

from lawm_data.episode import Episode
from lawm_data.errors import UserError
from lawm_data.manifest import NAME
from lawm_train import stream
from lawm_train.stream import Dataset, open_dataset

ROOT = Path(__file__).parent.parent
REPO = "tester/lawm-custom-made"
SLICE = "medium-replay"
EPISODES = made_episodes()
LABELED, UNLABELED, VALIDATION = EPISODES[:6], EPISODES[6:-4], EPISODES[-4:]
STRIPPED = [episode.stripped() for episode in UNLABELED]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_dataset(tmp_path / "dataset" / "custom-made", EPISODES)
    return tmp_path / "dataset" / "custom-made"


def ids(episodes: Iterator[Episode]) -> list[str]:
    return [episode.episode_id for episode in episodes]


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_folder_gives_back_what_was_written(folder: Path) -> None:
    dataset = open_dataset(str(folder))
    assert dataset.revision is None and list(dataset.manifest.slices) == [SLICE] and dataset.choose_slice() == SLICE
    assert str(folder) in dataset.describe()
    for split, written in {"labeled": LABELED, "unlabeled": STRIPPED, "validation": VALIDATION}.items():
        assert fingerprints(dataset.episodes(SLICE, split)) == fingerprints(written)
    assert fingerprints(dataset.episodes(SLICE, "unlabeled", with_actions=True)) == fingerprints(UNLABELED)
    assert fingerprints(dataset.episodes(SLICE, "labeled", with_actions=True)) == fingerprints(LABELED)


def test_shard_order_is_a_pure_function_of_seed_and_digest(tmp_path: Path) -> None:
    make_dataset(tmp_path / "a", EPISODES, per_shard=2)
    make_dataset(tmp_path / "b", EPISODES, per_shard=2, note="another digest")
    one, same, other = (open_dataset(str(tmp_path / name)) for name in "aab")

    def shuffled(dataset: Dataset, seed: int) -> list[str]:
        return ids(dataset.read(dataset.permuted(dataset.manifest.slices[SLICE].splits["unlabeled"], seed)))

    orders = [shuffled(one, seed) for seed in range(4)]
    assert shuffled(same, 3) == orders[3]
    assert ids(one.episodes(SLICE, "unlabeled")) == [episode.episode_id for episode in UNLABELED]
    assert len({tuple(order) for order in orders}) > 1
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert shuffled(other, 3) != orders[3]


def test_default_slice(tmp_path: Path) -> None:
    make_dataset(tmp_path / "one", EPISODES, slice_="expert")
    dataset = open_dataset(str(tmp_path / "one"))
    assert dataset.choose_slice() == "expert"
    with pytest.raises(UserError, match="no slice 'medium'.*there is expert"):
        dataset.episodes("medium", "labeled")


@pytest.mark.parametrize("where", ["no/such/folder", "nothing here", "org/name/more", "a"])
def test_nothing_is_no_dataset(where: str) -> None:
    with pytest.raises(UserError, match="no dataset"):
        open_dataset(where)


def test_folder_without_a_manifest_is_no_dataset(folder: Path) -> None:
    (folder / NAME).unlink()
    with pytest.raises(UserError, match=f"without {NAME}"):
        open_dataset(str(folder))


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_no_row_of_a_damaged_shard_is_used(folder: Path, damage: str) -> None:
    shard = sorted((folder / SLICE).glob("unlabeled-*"))[1]
    if damage == "flipped":
        flip_a_byte(shard)
    elif damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-100])
    else:
        shard.unlink()
    used = []
    with pytest.raises(UserError, match=shard.name):
        for episode in open_dataset(str(folder)).episodes(SLICE, "unlabeled"):
            used.append(episode.episode_id)
    assert used == [episode.episode_id for episode in UNLABELED[:8]], "those of the shard before it"
    assert ids(open_dataset(str(folder)).episodes(SLICE, "labeled")) == [episode.episode_id for episode in LABELED]


def test_shard_changed_after_it_was_read_is_checked_again(folder: Path) -> None:
    dataset = open_dataset(str(folder))
    list(dataset.episodes(SLICE, "labeled"))
    flip_a_byte(next((folder / SLICE).glob("labeled-*")))
    with pytest.raises(UserError, match="sha256"):
        list(dataset.episodes(SLICE, "labeled"))


def test_next_shard_is_fetched_while_this_one_is_read() -> None:
    started = {path: threading.Event() for path in "abc"}

    def fetch(path: str) -> str:
        started[path].set()
        return path

    fetched = stream.ahead(fetch, "abc")
    assert next(fetched) == "a"
    assert started["b"].wait(5) and not started["c"].is_set()
    assert list(fetched) == ["b", "c"]
    assert list(stream.ahead(fetch, "")) == []


def test_abandoned_iterator_does_not_wait_for_a_download() -> None:
    never = threading.Event()
    fetched = stream.ahead(lambda path: path == "a" or never.wait(60), "ab")
    next(fetched)
    closing = threading.Thread(target=fetched.close)  # type: ignore[attr-defined]
    closing.start()
    closing.join(5)
    assert not closing.is_alive()
    never.set()


def test_error_of_the_background_reaches_the_reader() -> None:
    def fetch(path: str) -> str:
        if path == "b":
            raise UserError("b is damaged")
        return path

    fetched = stream.ahead(fetch, "abc")
    assert next(fetched) == "a"
    with pytest.raises(UserError, match="b is damaged"):
        next(fetched)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    """Holds the dataset with two commits: v1 of the first 20 episodes, main of all."""
    root = tmp_path_factory.mktemp("workspace")
    with LoopbackHub(tmp_path_factory.mktemp("hub")) as running:
        make_dataset(root / "dataset" / "custom-made", EPISODES[:20], per_shard=32)
        run(running, "-m", "lawm_data.cli", "push", "--root", str(root), "--tag", "v1")
        make_dataset(root / "dataset" / "custom-made", EPISODES)
        for stale in (root / "dataset" / "custom-made").rglob("*-of-00001.arrow"):
            if "unlabeled" in stale.name or "withheld" in stale.name:
                stale.unlink()
        run(running, "-m", "lawm_data.cli", "push", "--root", str(root))
        yield running


def run(hub: LoopbackHub, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **hub.environment(), "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def read(hub: LoopbackHub, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(hub, str(ROOT / "tests" / "stream_client.py"), *arguments, **environment)


def test_hub_equals_the_folder_it_came_from(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    hub.requests.clear()
    there = json.loads(read(hub, REPO, str(tmp_path / "cache")).stdout)
    here = json.loads(read(hub, str(folder)).stdout)
    assert there.pop("revision") == hub.dataset(REPO).branches["main"] and here.pop("revision") is None
    assert there == here
    downloaded = [
        path.split("/resolve/")[1].split("/", 1)[1] for method, path, _ in hub.requests if "/resolve/" in path
    ]
    assert set(downloaded) == {NAME} | {p for p in hub.files(REPO) if p.endswith(".arrow")}, "no more than is needed"


def test_tag_and_sha_pin_a_revision(hub: LoopbackHub, tmp_path: Path) -> None:
    cache, sha = str(tmp_path / "cache"), hub.dataset(REPO).tags["v1"]
    by_tag = json.loads(read(hub, f"{REPO}@v1", cache).stdout)
    assert by_tag["revision"] == sha != hub.dataset(REPO).branches["main"]
    assert [name for name, _ in by_tag["labeled"]] == [episode.episode_id for episode in EPISODES[:4]]
    hub.requests.clear()
    by_sha = json.loads(read(hub, f"{REPO}@{sha}", cache).stdout)
    assert by_sha == by_tag and not hub.requests, "a cached commit needs no network"


def test_flipped_byte_on_the_server_is_found_and_forgotten(hub: LoopbackHub, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    path, file = next((path, file) for path, file in hub.files(REPO).items() if "labeled-00000" in path)
    stored = hub.objects / file.sha256
    intact = stored.read_bytes()
    flip_a_byte(stored)
    answer = read(hub, REPO, cache)
    stored.write_bytes(intact)
    assert answer.returncode != 0 and answer.stdout == ""
    (line,) = answer.stderr.strip().splitlines()[-1:]
    assert line.startswith("error: ") and REPO in line and path in line
    assert read(hub, REPO, cache).returncode == 0, "the damaged file was to leave the cache"


def test_withheld_actions_are_there_only_if_they_were_published(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    answer = read(hub, REPO, "--with-actions")
    assert "withheld-00000" in answer.stderr and "--with-actions" in answer.stderr and answer.returncode != 0
    root = str(folder.parent.parent)
    run(hub, "-m", "lawm_data.cli", "push", "--root", root, "--repo", "tester/open", "--with-actions")
    oracle = json.loads(read(hub, "tester/open", "--with-actions").stdout)
    assert oracle["unlabeled"] == fingerprints(UNLABELED)
    hub.requests.clear()
    blind = json.loads(read(hub, "tester/open", str(tmp_path / "cache")).stdout)
    assert blind["unlabeled"] == fingerprints(STRIPPED)
    assert not any("withheld" in path for _, path, _ in hub.requests), (
        "withheld actions are fetched only when asked for"
    )


def test_published_dataset_opens_without_this_project(hub: LoopbackHub, tmp_path: Path) -> None:
    code = (
        "import sys, datasets\n"
        f"rows = datasets.load_dataset('{REPO}', '{SLICE}', split='labeled', streaming=True)\n"
        "print([row['episode_id'] for row in rows])\n"
        "assert not any(name.startswith('lawm') for name in sys.modules)\n"
    )
    answer = run(hub, "-c", code, HF_HOME=str(tmp_path / "home"), PYTHONPATH="")
    assert answer.stdout.strip() == str([episode.episode_id for episode in LABELED]), answer.stderr
