"""What the manifest tells of the observations is what the shards hold; a dataset without it stays what it was."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import random_episode
from made_dataset import made_episodes

from lawm_data import files, shards, splitting
from lawm_data.errors import UserError
from lawm_data.manifest import NAME, Manifest
from lawm_data.slicing import Config
from lawm_data.store import Store
from lawm_data.summary import Summary

META = {"layout": [["state", 5]], "action_size": 2, "repeat": None, "collected": "made", "credits": None, "slice": None}
FAR = 1e6  # from zero: sums of squares would cancel


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("workspace")
    Store(root / "raw").create("custom:made", "made", META, [random_episode(k, 12 + k) for k in range(30)])
    splitting.split(root, None, Config(label_frac=0.2), root / "made")
    return root / "made"


def test_summary_is_that_of_all_rows():
    moved = [replace(e, observation=e.observation + np.float32(FAR)) for e in made_episodes(7)]
    recorded = [replace(moved[0], terminal=True), *moved[1:]]
    rows = np.concatenate([e.observation for e in recorded]).astype(np.float64)
    parts = [Summary.of(recorded[:2], 5), Summary.of(recorded[2:], 5), Summary.of([], 5)]
    for found, rounding in ((Summary.of(recorded, 5), 1e-6), (Summary.joined(parts[:2], 5), 1e-3)):
        assert (found.rows, found.ends) == (len(rows), 1)
        np.testing.assert_allclose(found.mean, rows.mean(0), rtol=1e-8)
        np.testing.assert_allclose(found.std, rows.std(0), rtol=rounding)
    assert parts[2].rows == 0


def test_a_summary_matches_one_of_as_many_rows_and_ends_alone():
    one = Summary(9, 1, [0.5], [2.0])
    assert one.matches(replace(one, mean=[0.5 + 1e-7])) and not one.matches(replace(one, mean=[0.51]))
    assert not one.matches(replace(one, rows=8)) and not one.matches(replace(one, ends=0))


def test_split_tells_each_kind_apart_from_its_very_rows(folder):
    manifest = Manifest.load(folder)
    (entry,) = manifest.slices.values()
    assert entry.summaries.keys() == {"labeled", "unlabeled"}
    for split, told in entry.summaries.items():
        read = [episode for path in entry.splits[split] for episode in shards.read(folder / path, path, manifest)]
        rows = np.concatenate([episode.observation for episode in read])
        assert told.rows == len(rows)
        np.testing.assert_allclose(told.mean, rows.mean(0, dtype=np.float64), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 10**9}, "summaries.labeled: not of the observations in its 1 files"),
        ({"rows": 1}, "summaries.labeled: not of the observations"),
        ({"mean": [0.0]}, "summaries.labeled: not of the observations"),
        ({"std": [-1.0] * 5}, "summaries.labeled: not of the observations"),
        (None, "summaries: not those of its labeled and unlabeled files"),
        ({"ends": "no"}, "summaries.labeled: 'ends' is 'no', expected int"),
        ({"mean": [0.0] * 5}, "the summary of labeled is not that of its shards"),
    ],
)
def test_wrong_summary_is_found(folder, change, message):
    value = files.read_json(folder / NAME)
    (entry,) = value["slices"].values()
    right = dict(entry["summaries"]["labeled"])
    if change is None:
        del entry["summaries"]["labeled"]
    else:
        entry["summaries"]["labeled"].update(change)
    files.write_json(folder / NAME, value)
    try:
        with pytest.raises(UserError, match=message):
            shards.verify(folder)
    finally:
        entry["summaries"]["labeled"] = right
        files.write_json(folder / NAME, value)
