"""Laws of the raw store: what goes in comes out, in any order; what is damaged is named; nothing is half there."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import counting_episode, random_episode
from made_dataset import made_episodes, make_dataset

from lawm_data import files, statistics, store
from lawm_data.episode import Episode
from lawm_data.errors import UserError
from lawm_data.manifest import NAME
from lawm_data.store import Store

ENV, SOURCE = "custom:count", "count"
META = {
    "layout": [["observation", 2]],
    "action_size": 1,
    "repeat": 1,
    "collected": "counted",
    "credits": None,
    "slice": None,
}


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHUNK_BYTES", 1000)  # three or four counting episodes


def made(root: Path, episodes: list[Episode]) -> Store:
    raw = Store(root / "raw")
    assert raw.create(ENV, SOURCE, META, episodes) == len(episodes)
    return raw


def mixed_episodes() -> list[Episode]:
    """Two seeds, lengths from 1, some without actions, some terminal."""
    return [
        dataclasses.replace(
            counting_episode(order, length=1 + 7 * order, seed=seed, actions=order % 3 != 1), terminal=order == 4
        )
        for seed in (0, 3)
        for order in range(8)
    ]


def assert_same(one: Episode, other: Episode) -> None:
    assert (one.episode_id, one.terminal, one.source) == (other.episode_id, other.terminal, other.source)
    for name in ("observation", "action", "reward"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert a.dtype == np.float32
            np.testing.assert_array_equal(a, b)


def damage(path: Path, change: str) -> None:
    data = bytearray(path.read_bytes())
    if change == "truncated":
        data = data[: len(data) // 2]
    elif change == "empty":
        data = bytearray()
    elif change == "flipped":
        data[data.index(np.float32(2005.0).tobytes()) + 1] ^= 4
    elif change == "text":
        data = bytearray(b"no HDF5")
    path.write_bytes(bytes(data))


def test_counting_episodes_come_back_exactly(tmp_path: Path, small_chunks: None) -> None:
    episodes = mixed_episodes()
    raw = made(tmp_path, episodes)
    rows = raw.rows(ENV)
    assert raw.envs() == [ENV] and raw.sources(ENV) == [SOURCE]
    assert [row.episode_id for row in rows] == [episode.episode_id for episode in episodes]
    for row, before, after in zip(rows, episodes, raw.read(rows), strict=True):
        assert_same(before, after)
        assert (row.length, row.episode_return) == (before.length, before.episode_return)
        assert (row.terminal, row.has_action) == (before.terminal, before.action is not None)


def test_any_order_reads_the_same(tmp_path: Path, small_chunks: None) -> None:
    raw = made(tmp_path, mixed_episodes())
    rows = raw.rows(ENV)
    in_order = {row.episode_id: episode for row, episode in zip(rows, raw.read(rows), strict=True)}
    assert len({row.path for row in rows}) > 3
    for seed in range(5):
        shuffled = random.Random(seed).sample(rows, 9)
        for row, episode in zip(shuffled, raw.read(shuffled), strict=True):
            assert_same(in_order[row.episode_id], episode)


def test_episodes_do_not_hold_their_chunk(tmp_path: Path) -> None:
    raw = made(tmp_path, mixed_episodes())
    for episode in raw.read(raw.rows(ENV)):
        assert episode.observation.base is None and episode.reward.base is None


def test_chunks_are_bounded_and_of_one_seed(tmp_path: Path, small_chunks: None) -> None:
    raw = made(tmp_path, [counting_episode(k, seed=seed) for seed in (0, 1) for k in range(9)])
    rows = raw.rows(ENV)
    for path in {row.path for row in rows}:
        members = [row for row in rows if row.path == path]
        assert sum(4 * (4 * row.length + 2) for row in members) <= 1000
        assert path == tmp_path / "raw" / ENV / SOURCE / str(members[0].seed) / f"{members[0].order:06d}.h5"


def test_append_continues_and_resume_goes_back_to_the_last_commit(tmp_path: Path) -> None:
    raw = made(tmp_path, [])
    for first in (0, 4, 8):
        raw.append(ENV, SOURCE, 0, [counting_episode(k) for k in range(first, first + 4)])
        if first < 8:
            raw.commit(ENV, SOURCE, 0, first + 4)
    assert [row.order for row in raw.rows(ENV)] == list(range(8)), "what is not committed may be discarded"
    raw.commit(ENV, SOURCE, 0, 12)
    assert [row.order for row in raw.rows(ENV)] == list(range(12))
    raw.commit(ENV, SOURCE, 0, 8)
    assert raw.resume(ENV, SOURCE, 0) == 8
    assert [row.order for row in raw.rows(ENV)] == list(range(8))


@pytest.mark.parametrize("lost", ["checkpoint.json", "000008.h5"])
def test_a_history_that_lost_a_file_is_an_error_and_stays(tmp_path: Path, lost: str) -> None:
    """Never taken for what a kill left, which is one file at the most."""
    raw = made(tmp_path, [])
    for first in (0, 4, 8):
        raw.append(ENV, SOURCE, 0, [counting_episode(k) for k in range(first, first + 4)])
        raw.commit(ENV, SOURCE, 0, first + 4)
    folder = tmp_path / "raw" / ENV / SOURCE / "0"
    (folder / lost).unlink()
    left = sorted(folder.iterdir())
    with pytest.raises(UserError, match=r"checkpoint\.json: .* restore what is missing"):
        raw.resume(ENV, SOURCE, 0)
    assert sorted(folder.iterdir()) == left
    if lost.endswith(".h5"):
        with pytest.raises(UserError, match="says 12 episodes, but 8 are there"):
            raw.rows(ENV)


@pytest.mark.parametrize(
    ("lost", "committed", "says"),
    [(8, 9, "says 9 .* 8 are there"), (None, 4, "2 files follow"), (8, 6, "says 6 .* 8 are there")],
)
def test_one_episode_less_or_one_file_more_than_a_kill_explains_is_an_error(
    tmp_path: Path, lost: int | None, committed: int, says: str
) -> None:
    raw = made(tmp_path, [])
    for orders in (range(4), range(4, 8), [8]):
        raw.append(ENV, SOURCE, 0, [counting_episode(k) for k in orders])
    raw.commit(ENV, SOURCE, 0, committed)
    if lost:
        (tmp_path / "raw" / ENV / SOURCE / "0" / f"{lost:06d}.h5").unlink()
    with pytest.raises(UserError, match=says):
        raw.rows(ENV)
    with pytest.raises(UserError, match=says):
        raw.resume(ENV, SOURCE, 0)


def test_a_changed_index_is_told_without_reading_an_episode(tmp_path: Path) -> None:
    raw = made(tmp_path, [counting_episode(k) for k in range(6)])
    with h5py.File(raw.rows(ENV)[0].path, "a") as file:
        file["episode_return"][2] += 1
    with pytest.raises(UserError, match="000000.h5: corrupt, its index"):
        raw.rows(ENV)


def test_a_first_round_that_lost_its_checkpoint_is_an_error_and_stays(tmp_path: Path) -> None:
    """A seed has a checkpoint before its first file: what a kill in the first round leaves is told from it."""
    raw = made(tmp_path, [])
    assert raw.resume(ENV, SOURCE, 0) == 0
    raw.append(ENV, SOURCE, 0, [counting_episode(k) for k in range(4)])
    assert raw.resume(ENV, SOURCE, 0) == 0 and not raw.rows(ENV), "a kill left it"
    raw.append(ENV, SOURCE, 0, [counting_episode(k) for k in range(4)])
    raw.commit(ENV, SOURCE, 0, 4)
    (tmp_path / "raw" / ENV / SOURCE / "0" / "checkpoint.json").unlink()
    with pytest.raises(UserError, match=r"checkpoint\.json: missing, but 1 files are there; restore"):
        raw.resume(ENV, SOURCE, 0)
    assert len(raw.rows(ENV)) == 4


@pytest.mark.parametrize("change", ["truncated", "empty", "flipped", "text"])
def test_a_damaged_chunk_is_named(tmp_path: Path, small_chunks: None, change: str) -> None:
    raw = made(tmp_path, [counting_episode(k) for k in range(6)])
    path = next(row.path for row in raw.rows(ENV) if row.order == 2)
    damage(path, change)
    with pytest.raises(UserError, match=path.name) as told:
        list(raw.read(raw.rows(ENV)))
    assert "\n" not in str(told.value)


def test_one_seed_is_read_without_the_others(tmp_path: Path, small_chunks: None) -> None:
    """A collector resumes whatever became of another's files."""
    raw = made(tmp_path, mixed_episodes())
    wanted = [row for row in raw.rows(ENV, SOURCE) if row.seed == 3]
    damage(tmp_path / "raw" / ENV / SOURCE / "0" / "000000.h5", "empty")
    assert raw.rows(ENV, SOURCE, 3) == wanted and raw.rows(ENV, SOURCE, 5) == []
    with pytest.raises(UserError, match="0/000000.h5"):
        raw.rows(ENV, SOURCE)


def test_no_flipped_byte_passes_unseen(tmp_path: Path) -> None:
    raw = made(tmp_path, [counting_episode(k) for k in range(3)])
    rows = raw.rows(ENV)
    before, path = list(raw.read(rows)), rows[0].path
    intact = path.read_bytes()
    for place in random.Random(0).sample(range(len(intact)), 150):
        path.write_bytes(intact[:place] + bytes([intact[place] ^ 0xFF]) + intact[place + 1 :])
        try:
            found = raw.rows(ENV)
            after = list(raw.read(found))
        except UserError:
            continue
        for one, other in zip(before, after, strict=True):
            assert_same(one, other)


def test_files_that_changed_names_are_told(tmp_path: Path, small_chunks: None) -> None:
    raw = made(tmp_path, [counting_episode(k) for k in range(12)])
    one, other, *_ = sorted({row.path for row in raw.rows(ENV)})
    aside = one.rename(tmp_path / "aside")
    other.rename(one)
    aside.rename(other)
    with pytest.raises(UserError, match="its index does not match its checksum or name"):
        raw.rows(ENV)


@pytest.mark.parametrize("missing", [0, 1, -1])
def test_a_missing_chunk_is_an_error(tmp_path: Path, small_chunks: None, missing: int) -> None:
    raw = made(tmp_path, [counting_episode(k) for k in range(12)])
    chunks = sorted({row.path for row in raw.rows(ENV)})
    chunks[missing].unlink()
    with pytest.raises(UserError, match="missing"):
        raw.rows(ENV)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    raw = made(tmp_path, [counting_episode(0)])
    path = tmp_path / "raw" / ENV / SOURCE / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": store.SCHEMA_VERSION + 1}))
    with pytest.raises(UserError, match=r"meta\.json: schema version 2.*update"):
        raw.rows(ENV)


@pytest.mark.parametrize(("key", "value"), [("layout", None), ("action_size", "6"), ("schema_version", "1")])
def test_a_description_of_wrong_types_names_the_key(tmp_path: Path, key: str, value: object) -> None:
    raw = made(tmp_path, [counting_episode(0)])
    path = tmp_path / "raw" / ENV / SOURCE / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(UserError, match=rf"meta\.json: '{key}' is .*delete"):
        raw.rows(ENV)


def test_a_source_appears_whole_or_not_at_all(tmp_path: Path, small_chunks: None) -> None:
    raw = Store(tmp_path / "raw")

    def interrupted() -> Iterator[Episode]:
        yield from (counting_episode(k) for k in range(9))
        assert list(tmp_path.rglob("*.h5")), "the interruption must come after the first chunk"
        assert raw.envs() == [], "a source under way is no source"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        raw.create(ENV, SOURCE, META, interrupted())
    assert raw.envs() == [] and not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("key", "value"), [("action_size", 2), ("layout", [["other", 2]]), ("repeat", 7)])
def test_one_env_has_one_shape(tmp_path: Path, key: str, value: object) -> None:
    raw = made(tmp_path, [counting_episode(0)])
    with pytest.raises(UserError, match=f"{key} .*, the new episodes have"):
        raw.create(ENV, "other", META | {key: value}, [])
    assert raw.sources(ENV) == [SOURCE]


def test_of_several_envs_one_is_named(tmp_path: Path) -> None:
    raw = made(tmp_path, [counting_episode(0)])
    assert raw.only_env(None) == ENV
    raw.create("custom:other", SOURCE, META, [dataclasses.replace(counting_episode(0), env="custom:other")])
    with pytest.raises(UserError, match="several environments; choose one with --env"):
        raw.only_env(None)


def test_statistics_are_those_of_the_episodes(tmp_path: Path) -> None:
    episodes = [random_episode(k, seed=seed, mean_reward=0.1 * k) for seed in (0, 1) for k in range(5)]
    meta = META | {"layout": [["observation", 5]], "action_size": 2}
    Store(tmp_path / "raw").create("custom:made", "made", meta, episodes)
    columns = dict.fromkeys(("mean", "std", "min", "p25", "median", "p75", "max"), 2.5)
    folder = tmp_path / "dataset" / "made"
    manifest = make_dataset(folder, made_episodes(10), slice_="expert")
    told = {"episodes": 5, "labeled": 1, "steps": 300, **columns}
    entry = dataclasses.replace(manifest.slices["expert"], complete=False, statistics=told)
    files.write_json(folder / NAME, dataclasses.replace(manifest, slices={"expert": entry}).to_json())
    found = statistics.collect_stats(tmp_path)
    assert [(row["seed"], row["episodes"], row["steps"]) for row in found["raw"]] == [(0, 5, 300), (1, 5, 300)]
    assert found["raw"][1]["mean"] == pytest.approx(np.mean([e.episode_return for e in episodes[5:]]))
    assert found["slices"] == [
        {"env": "custom:made", "slice": "expert", "complete": False, "episodes": 5, "labeled": 1, "table4": None}
        | columns
    ]
    assert json.loads(json.dumps(found)) == found
    assert "expert" in statistics.as_text(found, tmp_path)
    bare = dataclasses.replace(entry, statistics={"episodes": 5})
    files.write_json(folder / NAME, dataclasses.replace(manifest, slices={"expert": bare}).to_json())
    with pytest.raises(UserError, match="lawm.json: slices.expert.statistics: missing key 'mean'"):
        statistics.collect_stats(tmp_path)


def test_statistics_of_an_empty_workspace_say_what_to_run(tmp_path: Path) -> None:
    found = statistics.collect_stats(tmp_path)
    assert found == {"raw": [], "slices": []}
    assert "lawm-data collect" in statistics.as_text(found, tmp_path) and "lawm-data split" in statistics.as_text(
        found, tmp_path
    )
