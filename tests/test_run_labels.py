"""Whose actions a run reads: the dataset's own draw, one made anew, or all; what is hidden stays hidden."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import random_episode
from test_train import final, job

from lawm_data import splitting, windows
from lawm_data.errors import UserError
from lawm_data.slicing import Config
from lawm_data.store import Store
from lawm_train import methods, stream, train
from lawm_train.data import Labels

META = {"layout": [["state", 5]], "action_size": 2, "repeat": None, "collected": "made", "credits": None, "slice": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A function from settings of `split` to the dataset that it writes of the same 30 episodes."""
    root = tmp_path_factory.mktemp("workspace")
    Store(root / "raw").create("custom:made", "made", META, [random_episode(k, 12 + k) for k in range(30)])

    def split(name, **settings):
        out = root / name
        if not out.exists():
            splitting.split(root, None, Config(**settings), out)
        return stream.open_dataset(str(out))

    return split


def trained(dataset, path: Path, method="lawm", labels=None, seeds=(0,)):
    return train.train(job(dataset, method, seeds, labels=labels), path)


def equal(a, b):
    ours, theirs = final(a), final(b)
    assert ours.keys() == theirs.keys()
    return all(torch.equal(x, theirs[name]) for name, x in ours.items())


@pytest.mark.parametrize("method", ["lawm", "idm-td3bc"])
def test_a_draw_made_anew_trains_the_very_numbers_of_a_dataset_that_was_split_with_it(folder, tmp_path, method):
    ours, other = folder("a", label_frac=0.2), folder("b", label_frac=0.3, label_seed=5)
    (run,) = trained(ours, tmp_path / "redrawn", method, Labels(fraction=0.3, seed=5))
    (wanted,) = trained(other, tmp_path / "split", method)
    assert equal(run, wanted)
    keys = ("label_frac", "label_seed", "labeled", "oracle")
    assert [run.config[key] for key in keys] == [wanted.config[key] for key in keys] == [0.3, 5, 8, False]


def test_each_run_can_have_the_draw_of_its_own_seed(folder, tmp_path):
    dataset = folder("a", label_frac=0.2)
    job_of = job(dataset, "bc", [0, 1], labels=Labels(seed="own"))
    data = train.load_data(job_of)
    ids = [{episode.episode_id for episode in own} for own in data.labeled]
    assert len(ids[0]) == len(ids[1]) == 6 and ids[0] != ids[1]
    alone = train.load_data(job(folder("c", label_frac=0.2, label_seed=1), "bc"))
    assert [e.episode_id for e in data.labeled[1]] == [e.episode_id for e in alone.labeled[0]]
    runs = train.train(job_of, tmp_path)
    assert [run.config["label_seed"] for run in runs] == [0, 1]


def test_labels_are_told_as_drawn_anew_only_where_they_are(folder):
    own = Labels(seed="own")
    assert job(folder("a", label_frac=0.2), "bc", labels=own).described == "bc with labels drawn anew"
    assert job(folder("all"), "bc", labels=own).described == "bc", "every action is kept, whatever the seed"


@pytest.mark.parametrize("method", ["lawm", "clap"])
def test_an_oracle_trains_as_on_a_dataset_that_hides_nothing(folder, tmp_path, method):
    (run,) = trained(folder("a", label_frac=0.2), tmp_path / "oracle", method, Labels(oracle=True))
    (wanted,) = trained(folder("all"), tmp_path / "all", method)
    assert equal(run, wanted) and run.config["oracle"] and run.config["labeled"] == 28
    assert run.path.name == f"custom-made-medium-replay-{method}-oracle-s0"


def poisoned(monkeypatch, allowed=frozenset()):
    """NaN for every withheld action that nobody was allowed to read, and where an action is unknown."""
    read = stream.Dataset.episodes

    def episodes(self, slice_, split, **how):
        for episode in read(self, slice_, split, **how):
            if split == "unlabeled" and episode.action is not None and episode.episode_id not in allowed:
                episode = replace(episode, action=np.full_like(episode.action, np.nan))
            yield episode

    monkeypatch.setattr(stream.Dataset, "episodes", episodes)
    monkeypatch.setattr(windows, "HIDDEN", float("nan"))


@pytest.mark.parametrize("method", methods.METHODS)
def test_hidden_actions_touch_no_number_of_any_method(folder, tmp_path, monkeypatch, method):
    dataset = folder("a", label_frac=0.2)
    (clean,) = trained(dataset, tmp_path / "clean", method)
    poisoned(monkeypatch)
    (dirty,) = trained(dataset, tmp_path / "dirty", method)
    assert equal(clean, dirty) and dirty.stopped is None


def test_a_draw_made_anew_reads_the_drawn_actions_alone(folder, tmp_path, monkeypatch):
    dataset, labels = folder("a", label_frac=0.2), Labels(seed=7)
    drawn = {episode.episode_id for episode in train.load_data(job(dataset, labels=labels)).labeled[0]}
    (clean,) = trained(dataset, tmp_path / "clean", labels=labels)
    poisoned(monkeypatch, drawn)
    (dirty,) = trained(dataset, tmp_path / "dirty", labels=labels)
    assert equal(clean, dirty) and dirty.stopped is None


def test_true_actions_stay_where_they_are_known_and_the_idm_fills_in_the_others(folder):
    one = job(folder("a", label_frac=0.2), "idm-td3bc", [0, 1])
    data = train.load_data(one)
    method = train.build(one, data)
    everything = method._relabeled(data)
    for model in (0, 1):
        known, filled = everything.labeled[model][:6], everything.labeled[model][6:]
        assert all(np.array_equal(a.action, b.action) for a, b in zip(known, data.labeled[0], strict=True))
        assert len(filled) == 22 and all(np.abs(episode.action).max() <= 1 for episode in filled)
    assert not np.array_equal(everything.labeled[0][6].action, everything.labeled[1][6].action)


def test_the_learner_trains_on_what_the_trained_idm_infers(folder, monkeypatch):
    one = job(folder("a", label_frac=0.2), "idm-td3bc")
    data = train.load_data(one)
    method = train.build(one, data)
    (before,) = method.idm.relabel(data.unlabeled[0][:1])
    given, phases = [], method.learner.phases
    monkeypatch.setattr(method.learner, "phases", lambda data: given.append(data) or phases(data))
    first, second = method.phases(data)
    for i in range(first.updates):
        first.step(i)
    (after,) = method.idm.relabel(data.unlabeled[0][:1])
    second.step(0)
    assert not np.array_equal(before.action, after.action)
    assert np.array_equal(given[-1].labeled[0][len(data.labeled[0])].action, after.action)


def test_where_every_action_is_kept_there_is_nothing_to_infer_or_to_draw(folder, tmp_path):
    dataset = folder("all")
    with pytest.raises(UserError, match="keeps every action .* so --label-seed draws nothing; name --label-frac"):
        trained(dataset, tmp_path, "bc", Labels(seed=3))
    with pytest.raises(UserError, match="so idm-td3bc has none to infer; take --method td3bc"):
        trained(dataset, tmp_path, "idm-td3bc", Labels(seed="own"))
    assert not list(tmp_path.iterdir())
    (run,) = trained(dataset, tmp_path, "idm-td3bc", Labels(fraction=0.3))
    assert run.config["labeled"] == 8 and run.path.name == "custom-made-medium-replay-idm-td3bc-frac0.3-s0"


def test_where_every_action_is_kept_a_run_is_the_same_with_labels_of_its_own(folder, tmp_path):
    """As `grid` asks for them, after `lawm-train` began it."""
    dataset = folder("all")
    one = train.train(job(dataset, "bc", [0, 1]), tmp_path)
    rows = [list(run.metrics()) for run in one]
    again = train.train(job(dataset, "bc", [0, 1], labels=Labels(seed="own")), tmp_path)
    assert [list(run.metrics()) for run in again] == rows


def test_an_oracle_has_nothing_to_infer_or_to_draw():
    with pytest.raises(UserError, match="take --method td3bc"):
        methods.check("idm-td3bc", Labels(oracle=True))
    with pytest.raises(UserError, match="nothing for --label-frac"):
        methods.check("clap", Labels(oracle=True, fraction=0.1))


def test_a_seed_has_the_heads_that_it_has_alone_whichever_draw_holds_the_true_end(tmp_path):
    """A lone seed whose own draw misses the one true end has the continue head all the same."""
    episodes = [replace(random_episode(k, 12 + k), terminal=k == 17) for k in range(30)]
    Store(tmp_path / "raw").create("custom:made", "made", META, episodes)
    splitting.split(tmp_path, None, Config(label_frac=0.2), tmp_path / "out")
    dataset, labels = stream.open_dataset(str(tmp_path / "out")), Labels(seed="own")
    lone = [train.load_data(job(dataset, "clap", [seed], labels=labels)) for seed in range(12)]
    ends = [any(episode.terminal for episode in data.labeled[0]) for data in lone]
    assert True in ends and False in ends
    side = train.load_data(job(dataset, "clap", range(12), labels=labels))
    assert [data.sizes for data in lone] == [side.sizes] * 12 and side.sizes.terminal
    own = train.load_data(job(dataset, "clap"))
    assert not own.sizes.terminal and not any(episode.terminal for episode in own.labeled[0])
    assert train.load_data(job(dataset, "clap", labels=Labels(oracle=True))).sizes.terminal, "it reads the others too"


def test_where_every_action_is_kept_seeds_share_one_copy_of_the_episodes(folder):
    asked = job(folder("whole"), "bc", [0, 1, 2], labels=Labels(seed="own"))
    data = train.load_data(asked)
    assert all(own is data.labeled[0] for own in data.labeled) and len({id(p) for ps in data.pools for p in ps}) == 1
    assert asked.gigabytes == job(folder("whole"), "bc").gigabytes and not asked.reads_all_first
    assert [asked.asked(seed)["label_seed"] for seed in (0, 1, 2)] == [0, 0, 0]
