"""Laws of the shards: what was written is read, what was stripped is not there, what is wrong is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers import counting_episode, random_episode
from made_dataset import made_episodes, make_dataset

from lawm_data import files, shards
from lawm_data.errors import UserError
from lawm_data.manifest import NAME, Manifest, find

LABELED = "medium-replay/labeled-00000-of-00001.arrow"
UNLABELED = "medium-replay/unlabeled-00000-of-00003.arrow"
WITHHELD = "medium-replay-actions/withheld-00000-of-00003.arrow"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "dataset"
    make_dataset(folder, made_episodes())
    return folder


@pytest.fixture
def dataset(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(made, tmp_path / "dataset"))


def same(one: Any, other: Any) -> bool:
    arrays = [(one.observation, other.observation), (one.reward, other.reward)]
    arrays += [] if one.action is None and other.action is None else [(one.action, other.action)]
    equal = all(a.dtype == np.float32 and np.array_equal(a, b) for a, b in arrays)
    return equal and one.episode_id == other.episode_id and one.terminal == other.terminal


def test_read_gives_what_was_written(made: Path) -> None:
    manifest, episodes = Manifest.load(made), made_episodes()
    for episode, found in zip(episodes[:6], shards.read(made / LABELED, LABELED, manifest), strict=True):
        assert same(episode, found)
    for episode, found in zip(episodes[6:14], shards.read(made / UNLABELED, UNLABELED, manifest), strict=True):
        assert same(episode.stripped(), found)


def test_withheld_actions_come_back_row_by_row(made: Path) -> None:
    found = shards.read(made / UNLABELED, UNLABELED, Manifest.load(made), made / WITHHELD)
    assert all(same(one, other) for one, other in zip(made_episodes()[6:14], found, strict=True))


def test_time_is_where_it_was(tmp_path: Path) -> None:
    """Counting episodes of many lengths, more than one record batch."""
    counted = [counting_episode(order, length=1 + order) for order in range(40)]
    entries = shards.write(tmp_path, LABELED, counted, labeled=True)
    layout = [("count", 1), ("down", 1)]
    manifest = Manifest("custom:count", layout, 2, 1, 1, None, 0, {}, [], [], entries)
    for order, episode in enumerate(shards.read(tmp_path / LABELED, LABELED, manifest)):
        assert np.array_equal(episode.observation[:, 0], order * 1000 + np.arange(order + 2))
        assert np.array_equal(episode.reward, (order + np.arange(order + 1) / 1000).astype(np.float32))


def test_a_stripped_action_leaves_no_bytes(tmp_path: Path) -> None:
    episodes = [random_episode(order) for order in range(20)]
    shards.write(tmp_path, UNLABELED, episodes, False, WITHHELD)
    blob, withheld = (tmp_path / UNLABELED).read_bytes(), (tmp_path / WITHHELD).read_bytes()
    for episode in episodes:
        assert episode.action is not None and episode.observation.tobytes() in blob
        for row in episode.action:
            assert row.tobytes() not in blob and row.tobytes() in withheld
    column = pa.ipc.open_file(pa.py_buffer(blob)).read_all().column("action")
    assert column.null_count == 20 and sum(len(chunk.values) for chunk in column.chunks) == 0


def test_a_slice_of_a_record_batch_is_read_alike(made: Path) -> None:
    manifest = Manifest.load(made)
    (batch,) = pa.ipc.open_file(pa.memory_map(str(made / LABELED))).read_all().slice(2, 3).to_batches()
    part = shards.episodes_of(batch, manifest, "here")
    assert all(same(one, other) for one, other in zip(made_episodes()[2:5], part, strict=True))


def rewritten(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    table = change(pa.ipc.open_file(pa.py_buffer(path.read_bytes())).read_all())
    with files.new_file(path) as temporary, pa.ipc.new_file(str(temporary), table.schema) as writer:
        writer.write_table(table)


def with_column(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    index = table.schema.get_field_index(name)
    return table.set_column(index, table.schema.field(index), pa.array(values, table.schema.field(index).type))


def cut_short(table: pa.Table) -> pa.Table:
    """The observation of row 3 loses a value."""
    values = table.column("observation").to_pylist()
    return with_column(table, "observation", [v[:-1] if k == 3 else v for k, v in enumerate(values)])


def without_reward(table: pa.Table) -> pa.Table:
    return with_column(table, "reward", [None, *table.column("reward").to_pylist()[1:]])


def a_hole(table: pa.Table) -> pa.Table:
    return with_column(table, "reward", [[None, *v[1:]] for v in table.column("reward").to_pylist()])


def unknown_return(table: pa.Table) -> pa.Table:
    return with_column(table, "episode_return", [None] * len(table))


def negative_length(table: pa.Table) -> pa.Table:
    return with_column(table, "length", [-1] * len(table))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut_short, r"custom:made/made/0/000003: observation holds 219 values, expected 220"),
        (without_reward, r"custom:made/made/0/000000: reward holds 0 values, expected 40"),
        (a_hole, "reward has missing values inside a list"),
        (negative_length, "a row has no length or one below 1"),
        (lambda table: table.slice(1), "5 rows, lawm.json says 6"),
        (lambda table: table.drop_columns(["order"]), "columns are not those"),
    ],
)
def test_sizes_are_compared_before_any_reshape(
    dataset: Path, change: Callable[[pa.Table], pa.Table], message: str
) -> None:
    rewritten(dataset / LABELED, change)
    with pytest.raises(UserError, match=f"labeled-00000.*{message}"):
        list(shards.read(dataset / LABELED, LABELED, Manifest.load(dataset)))


def test_actions_in_an_unlabeled_shard_are_read_by_nobody(dataset: Path) -> None:
    """Also where the manifest has its digest: `verify` would refuse it, a training does not verify."""
    manifest = Manifest.load(dataset)
    entry = shards.write(dataset, UNLABELED, made_episodes()[6:14], labeled=True)
    manifest = replace(manifest, files=manifest.files | entry)
    with pytest.raises(UserError, match="unlabeled-00000-of-00003.arrow: holds actions, though it is unlabeled"):
        next(shards.read(dataset / UNLABELED, UNLABELED, manifest))


def test_verify_says_what_is_there(made: Path) -> None:
    assert shards.verify(made) == "1 slices, 26 trajectories, 6 of them labeled, 9 files"


def truncated(path: Path) -> None:
    files.write_bytes(path, path.read_bytes()[:-100])


def one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    files.write_bytes(path, bytes(data))


@pytest.mark.parametrize("damage", [truncated, one_bit, Path.unlink])
@pytest.mark.parametrize("name", [LABELED, UNLABELED, "README.md"])
def test_verify_names_a_damaged_file(dataset: Path, damage: Callable[[Path], None], name: str) -> None:
    damage(dataset / name)
    with pytest.raises(UserError, match=name):
        shards.verify(dataset)


@pytest.mark.parametrize("name", ["medium-replay/labeled-00001-of-00002.arrow", "old/labeled-00000-of-00001.arrow"])
def test_verify_names_a_stale_extra_shard_and_the_cure(dataset: Path, name: str) -> None:
    (dataset / name).parent.mkdir(exist_ok=True)
    shutil.copy(dataset / LABELED, dataset / name)
    with pytest.raises(UserError, match=rf"{name}: not named in lawm.json.*delete it"):
        shards.verify(dataset)


def test_verify_without_withheld_actions(dataset: Path) -> None:
    shutil.rmtree(dataset / "medium-replay-actions")
    assert "without 3 of withheld actions" in shards.verify(dataset)


def beyond_bounds(table: pa.Table) -> pa.Table:
    return with_column(table, "action", [[9.0] * len(v) for v in table.column("action").to_pylist()])


def resealed(dataset: Path, name: str) -> None:
    """Give a changed shard its new digest: only a look at the rows can tell."""
    manifest = json.loads((dataset / NAME).read_text())
    entry = shards.entry_of(dataset / name, manifest["files"][name]["rows"])
    manifest["files"][name] = {"sha256": entry.sha256, "bytes": entry.bytes, "rows": entry.rows}
    files.write_json(dataset / NAME, manifest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: with_column(table, "order", [*range(1, 7)]), "source, seed and order make it"),
        (lambda table: with_column(table, "labeled", [False] * 6), "its action and its split do not agree"),
        (lambda table: with_column(table, "episode_return", [7.0] * 6), "its rewards add up otherwise"),
        (unknown_return, "a row without episode_return"),
        (lambda table: pa.concat_tables([table.slice(0, 5), table.slice(0, 1)]), "is in slice medium-replay twice"),
    ],
)
def test_verify_looks_at_the_rows(dataset: Path, change: Callable[[pa.Table], pa.Table], message: str) -> None:
    rewritten(dataset / LABELED, change)
    resealed(dataset, LABELED)
    with pytest.raises(UserError, match=message):
        shards.verify(dataset)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.take([1, 0, *range(2, len(table))]), "its rows are not those of"),
        (beyond_bounds, "outside"),
    ],
)
def test_verify_looks_at_what_is_withheld(dataset: Path, change: Callable[[pa.Table], pa.Table], message: str) -> None:
    rewritten(dataset / WITHHELD, change)
    resealed(dataset, WITHHELD)
    with pytest.raises(UserError, match=message):
        shards.verify(dataset)
    if "not those" in message:
        with pytest.raises(UserError, match=message):
            next(shards.read(dataset / UNLABELED, UNLABELED, Manifest.load(dataset), dataset / WITHHELD))


def test_withheld_actions_of_fewer_episodes_are_told(tmp_path: Path) -> None:
    """Also where they end with a record batch, and the manifest counts them so."""
    manifest = make_dataset(tmp_path, made_episodes(), per_shard=32)
    (name,) = manifest.slices["medium-replay"].splits["unlabeled"]
    withheld = shards.withheld_of(name)
    rewritten(tmp_path / withheld, lambda table: table.slice(0, shards.BATCH_ROWS))
    manifest = replace(manifest, files=manifest.files | {withheld: shards.entry_of(tmp_path / withheld, 16)})
    with pytest.raises(UserError, match=f"{withheld}: 16 rows, lawm.json says 20"):
        list(shards.read(tmp_path / name, name, manifest, tmp_path / withheld))


def test_verify_finds_an_episode_in_two_splits(dataset: Path) -> None:
    """Else it would be held out and trained on."""
    validation = "medium-replay-validation/validation-00000-of-00001.arrow"
    shards.write(dataset, validation, [*made_episodes()[-4:-1], made_episodes()[0]], labeled=True)
    resealed(dataset, validation)
    with pytest.raises(UserError, match="0/000000 is in slice medium-replay twice"):
        shards.verify(dataset)


def test_the_manifest_reads_back(made: Path) -> None:
    manifest = Manifest.load(made)
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest


def test_the_digest_names_every_file_but_what_is_hidden(made: Path) -> None:
    manifest = Manifest.load(made)
    assert WITHHELD in manifest.withheld and len(manifest.withheld) == 3
    for name in manifest.files:
        value = manifest.to_json()
        value["files"][name]["sha256"] = "0" * 64
        assert (Manifest.from_json(value).digest != manifest.digest) == (name not in manifest.withheld), name


def test_no_damaged_file_passes_verify(dataset: Path) -> None:
    for name in Manifest.load(dataset).files:
        whole = (dataset / name).read_bytes()
        (dataset / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(UserError, match=f"{name}: its sha256 differs"):
            shards.verify(dataset)
        (dataset / name).write_bytes(whole)
    shards.verify(dataset)


def changed(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set or, with None for a missing key, remove the key at a path such as `slices/medium-replay/found`."""

    def change(manifest: dict[str, Any]) -> None:
        *path, last = key.split("|")
        for name in path:
            manifest = manifest[name]
        if value is None:
            del manifest[last]
        else:
            manifest[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("schema_version", 99), "schema_version is 99"),
        (changed("env", None), "missing key 'env'"),
        (changed("surprise", 1), "unknown key 'surprise'"),
        (changed("action_size", "2"), "'action_size' is '2', expected int"),
        (changed("action_size", True), "'action_size' is True"),
        (changed("observation_size", 7), "do not fit together"),
        (changed("slices|medium-replay|found", "many"), "slices.medium-replay: 'found' is 'many'"),
        (changed("slices|medium-replay|splits|labeled", ["elsewhere.arrow"]), "'elsewhere.arrow' has no digest"),
        (changed("slices|medium-replay|splits|unlabeled", [LABELED]), "named twice"),
        (changed("slices|medium-replay|splits|withheld", None), "withheld-.*has rows, and no slice names it"),
        (changed("slices|../medium", {}), "slices.../medium: missing key"),
        (changed("files|../../etc/passwd", {"sha256": "0" * 64, "bytes": 1, "rows": 1}), "not a plain path"),
        (changed("files|/etc/passwd", {"sha256": "0" * 64, "bytes": 1, "rows": 1}), "not a plain path"),
        (changed("files|a/../b", {"sha256": "0" * 64, "bytes": 1, "rows": 1}), "not a plain path"),
        (changed(f"files|{LABELED}|sha256", "0"), "cannot be right"),
        (changed(f"files|{LABELED}|bytes", -1), "cannot be right"),
        (changed("repeat", 0), "repeat 0 .*cannot be right"),
        (changed("repeat", -1), "repeat -1 .*cannot be right"),
        (changed("label_fraction", 0), "label_fraction 0 cannot be right"),
        (changed("label_fraction", 1.5), "label_fraction 1.5 cannot be right"),
    ],
)
def test_a_wrong_manifest_names_the_key(made: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    value = json.loads((made / NAME).read_text())
    change(value)
    with pytest.raises(UserError, match=f"lawm.json: .*{message}"):
        Manifest.from_json(value)


STATISTICS = "slices|medium-replay|statistics"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(f"{STATISTICS}|mean", 999), "slice medium-replay: says mean 999, its shards make it"),
        (changed(f"{STATISTICS}|p25", 0.5), "slice medium-replay: says p25 0.5, its shards make it"),
        (changed(f"{STATISTICS}|episodes", 27), "slice medium-replay: says episodes 27, its shards make it 26"),
        (changed(f"{STATISTICS}|steps", 7), "slice medium-replay: says steps 7, its shards make it 1365"),
        (changed("slices|medium-replay|labeled_statistics", {}), "medium-replay, labeled: says mean None"),
        (changed("slices|medium-replay|labeled_statistics|max", 999), "medium-replay, labeled: says max 999"),
        (changed("label_fraction", 0.9), "slice medium-replay: 6 of 26 labeled, not label_fraction 0.9"),
    ],
)
def test_verify_compares_what_the_manifest_says_of_a_slice(
    dataset: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    value = json.loads((dataset / NAME).read_text())
    change(value)
    files.write_json(dataset / NAME, value)
    with pytest.raises(UserError, match=message):
        shards.verify(dataset)


def test_verify_bears_the_rounding_of_another_machine(dataset: Path) -> None:
    value = json.loads((dataset / NAME).read_text())
    value["slices"]["medium-replay"]["statistics"]["std"] += 1e-4
    files.write_json(dataset / NAME, value)
    assert shards.verify(dataset).startswith("1 slices, 26 trajectories")


def test_a_folder_without_a_manifest_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no lawm.json there"):
        shards.verify(tmp_path)


def test_find_the_only_dataset_or_ask(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lawm-data split"):
        find(tmp_path)
    for env in ("walker-walk", "custom-robot"):
        files.write_json(tmp_path / env / NAME, {})
        if env == "walker-walk":
            assert find(tmp_path).name == env
    with pytest.raises(UserError, match="--env: custom-robot, walker-walk"):
        find(tmp_path)
    assert find(tmp_path, "custom:robot") == tmp_path / "custom-robot"
    with pytest.raises(UserError, match="no dataset of hopper-stand"):
        find(tmp_path, "hopper-stand")
