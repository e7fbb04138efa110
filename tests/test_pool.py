"""A pool that moves over the shards: in bounded memory, every trajectory as often, the same numbers after a kill."""

import os
import signal
import subprocess
import sys
import weakref
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from helpers import counting_episode
from made_dataset import make_dataset
from test_stream import flip_a_byte
from test_train import final, job, logged

from lawm_data import hub
from lawm_data.errors import UserError
from lawm_train import data, pool, stream, train
from lawm_train.data import Data, Labels

SLICE, LENGTH, WINDOW = "medium-replay", 40, 8
UNLABELED = range(6, 30)  # orders of the trajectories
HELD = 4  # trajectories of a generation of two shards: six generations an epoch
BATCHES = HELD * LENGTH // (WINDOW * 2)  # of a generation, at two unlabeled windows a batch
POOL_GB = 32e-6  # room for the labeled trajectories and two generations
ROOT = Path(__file__).parent.parent


def written(path: Path, note: str = "") -> Path:
    """6 labeled and 24 unlabeled trajectories, two in a shard."""
    make_dataset(path, [counting_episode(order, LENGTH) for order in range(34)], per_shard=2, note=note)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return written(tmp_path_factory.mktemp("data") / "made")


def moving_job(folder, seeds=(0,), method="lawm", settings=(), labels=None):
    small = [
        f"train.pool_gb={POOL_GB}",
        "train.updates=12",
        "agent.clap.updates=6",
        "train.batch=8",
        "train.log_every=1",
    ]
    return job(stream.open_dataset(str(folder)), method, seeds, [*small, *settings], labels)


def windows_of(folder, seeds=(0,), method="lawm"):
    data = train.load_data(moving_job(folder, seeds, method))
    assert isinstance(data, pool.Moving)
    return data.windows(seeds, [2, 2], "cpu")


def unlabeled(folder):
    return pool.Split(stream.open_dataset(str(folder)), SLICE, "unlabeled", WINDOW)


def orders(batch):
    """Of the trajectories that the windows are from, [N, B]."""
    return torch.floor(batch.observation[0, ..., 0] / 1000).int()


def same(a, b):
    return torch.equal(a.observation, b.observation) and torch.equal(a.action, b.action)


def test_over_an_epoch_every_trajectory_gives_as_many_windows(folder):
    models, epochs = 8, 4
    windows, drawn, generations = windows_of(folder, range(models)), Counter(), []
    for first in range(0, 6 * BATCHES * epochs, BATCHES):
        seen = [order for i in range(BATCHES) for order in orders(windows.batch(first + i))[:, 2:].flatten().tolist()]
        assert len(set(seen)) == HELD, "two shards at a time"
        generations.append(frozenset(seen))
        drawn.update(seen)
    for epoch in range(epochs):
        assert set().union(*generations[6 * epoch : 6 * epoch + 6]) == set(UNLABELED)
    assert generations[:6] != generations[6:12], "another order in another epoch"
    mean = 6 * BATCHES * epochs * 2 * models / len(UNLABELED)
    assert all(abs(drawn[order] - mean) < 5 * mean**0.5 for order in UNLABELED), drawn


def test_trajectories_of_shards_of_any_size_stay_as_long(tmp_path):
    make_dataset(tmp_path / "made", [counting_episode(order, 200) for order in range(104)], per_shard=7)
    split = pool.Split(stream.open_dataset(str(tmp_path / "made")), SLICE, "unlabeled", 1)
    total = split.trajectories
    assert total == 80 and total % 7, "the last shard is smaller"
    seen, stays = 0, []
    for one in split.generations(split.size / 4, 200, 2):
        held = sum(split.dataset.manifest.files[path].rows for path in one.paths)
        seen += held
        stays.append((one.end - one.begin) / held)
        if seen >= total:
            break
    assert seen == total and len(stays) > 4 and set(stays) == {100.0}


def test_pools_stay_within_the_bound(folder, monkeypatch):
    alive = weakref.WeakSet()

    class Watched(pool.Pool):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            alive.add(self)

    monkeypatch.setattr(pool, "Pool", Watched)
    windows, most = windows_of(folder), 0.0
    for index in [*range(60), *range(30)]:  # two phases
        windows.batch(index)
        most = max(most, sum(one.rows.nbytes for one in list(alive)))
    trajectory = (LENGTH + 1) * (2 + 1 + 1) * 4
    # what is labeled, two generations, and one that a reader just let go; shards are small, so files are mostly headers
    assert 0 < most <= (len(range(6)) + 3 * HELD) * trajectory < POOL_GB * 1e9


@pytest.mark.parametrize(
    ("method", "labels"),
    [
        ("lawm", Labels(seed="own")),
        ("bc", Labels(fraction=0.5, seed="own")),
        ("clap", Labels(oracle=True)),
        ("idm-td3bc", Labels()),
        ("idm-clap", Labels(seed="own")),
    ],
)
def test_what_seeds_hold_of_their_own_is_counted(folder, monkeypatch, method, labels):
    packed, pack = [], data.Pool
    monkeypatch.setattr(data, "Pool", lambda *given: packed.append(pack(*given)) or packed[-1])

    def counted_to_held(seeds, method, labels):
        packed.clear()
        one = moving_job(folder, seeds, method, ["train.pool_gb=1", "agent.idm.updates=1"], labels)
        read = train.load_data(one)
        for phase in train.build(one, read).phases(read)[:2]:
            phase.step(0)
        return one.gigabytes * 1e9 / sum(each.rows.nbytes for each in packed)

    headers = counted_to_held([0], "lawm", Labels())  # files of few trajectories are mostly those
    assert headers >= 1 and counted_to_held([0, 1, 2], method, labels) == pytest.approx(headers, rel=0.02)


def test_batches_are_a_pure_function_of_the_digest_and_their_number(folder, tmp_path, monkeypatch):
    windows = windows_of(folder)
    batches = [windows.batch(index) for index in range(40)]
    fetched, pull, copy = [], hub.Folder.pull, written(tmp_path / "copy")

    def watched(self, path):
        if self.path == copy:
            fetched.append(path)
        return pull(self, path)

    monkeypatch.setattr(hub.Folder, "pull", watched)
    again = windows_of(copy)
    assert not fetched, "nothing is read before a batch is drawn"
    assert same(again.batch(35), batches[35])
    read = [path for path in fetched if "/unlabeled-" in path]
    assert len(read) <= 4, "its own generation and, in the background, the next"
    for index in (36, 0, 9, 10, 39):  # into a generation, back, and over its end
        assert same(again.batch(index), batches[index])
    other = windows_of(written(tmp_path / "other", note="another digest"))
    assert not all(same(other.batch(index), batches[index]) for index in range(40))


def test_seeds_share_the_pool_and_draw_as_a_lone_run_does(folder):
    both, lone = windows_of(folder, [3, 4]), windows_of(folder, [4])
    for index in range(0, 40, 3):
        pair, batch = both.batch(index), lone.batch(index)
        assert torch.equal(pair.observation[:, 1:], batch.observation)
        assert not torch.equal(pair.observation[:, 0], pair.observation[:, 1])


@pytest.mark.parametrize("damage", ["sha256", "missing"])
def test_no_row_of_a_damaged_shard_is_used_and_one_line_says_so(folder, tmp_path, damage):
    copy = written(tmp_path / "copy")
    windows, clean = windows_of(copy), windows_of(folder)
    following = list(islice(unlabeled(copy).generations(10_100, LENGTH, 2), 3))[2]
    broken = copy / following.paths[-1]
    if damage == "sha256":
        flip_a_byte(broken)
    else:
        broken.unlink()
    assert all(same(windows.batch(index), clean.batch(index)) for index in range(following.begin))
    with pytest.raises(UserError, match=f"{broken.name}: .*{damage}"):
        windows.batch(following.begin)


def test_a_run_that_a_damaged_shard_stopped_goes_on_once_it_is_repaired(tmp_path):
    copy, runs = written(tmp_path / "copy"), tmp_path / "runs"
    job_of = moving_job(copy, method="bc", settings=["agent.bc.batch=16", "train.pool_gb=8e-6"])
    split = pool.Split(job_of.dataset, SLICE, "labeled", 1)
    following = list(islice(split.generations(4000, LENGTH, 16), 2))[1]
    shard = copy / following.paths[0]
    intact = shard.read_bytes()
    shard.write_bytes(intact[:-1])
    with pytest.raises(UserError, match=shard.name):
        train.train(job_of, runs)
    (run,) = map(train.Run, runs.iterdir())
    assert [row["update"] for row in run.metrics()][-1] == following.begin == 5
    shard.write_bytes(intact)
    assert train.train(job_of, runs)[0].positions()[-1] == (0, 10)


KILLED = """
import os, signal, sys
from test_pool import moving_job
from pathlib import Path
from lawm_train import train
after = train._Loop._after
def killed(self, update, bar):
    after(self, update, bar)
    if (self.number, update) == (int(sys.argv[3]), int(sys.argv[4])):
        os.kill(os.getpid(), signal.SIGKILL)
train._Loop._after = killed
train.train(moving_job(sys.argv[1], [0, 1]), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("at", [(0, 11), pytest.param((1, 5), marks=pytest.mark.slow)])
def test_a_killed_run_continues_the_very_same_numbers(folder, tmp_path, at):
    """From a checkpoint after four updates, in a generation that takes five, and over the end of more than one."""
    whole = train.train(moving_job(folder, [0, 1]), tmp_path / "whole")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-c", KILLED, str(folder), str(tmp_path / "cut"), *map(str, at)]
    killed = subprocess.run(command, env=environment, capture_output=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    again = train.train(moving_job(folder, [0, 1]), tmp_path / "cut")
    for a, b in zip(whole, again, strict=True):
        assert a.positions()[-1] == b.positions()[-1] and logged(a) == logged(b)
        tensors, others = final(a), final(b)
        assert tensors.keys() == others.keys()
        assert all(torch.equal(tensors[name], others[name]) for name in tensors)


@pytest.mark.parametrize("method", ["lawm", "clap", "bc", "td3bc"])
def test_statistics_are_those_of_what_the_method_trains_on(folder, method):
    small = "train.pool_gb=8e-6"  # less than the labeled trajectories alone
    if method == "lawm":
        small = f"train.pool_gb={POOL_GB}"
    whole = train.load_data(moving_job(folder, [0, 1], method, ["train.pool_gb=1"]))
    assert isinstance(whole, Data)
    found = train.load_data(moving_job(folder, [0, 1], method, [small]))
    assert isinstance(found, pool.Moving) and found.labeled_counts == whole.labeled_counts == [6, 6]
    assert found.sizes == whole.sizes and found.kinds == whole.kinds
    for ours, theirs in zip(found.statistics(), whole.statistics(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_what_fits_is_drawn_from_all_whatever_the_pool(folder, tmp_path, capsys):
    """And a run may go on with another one."""
    runs = train.train(moving_job(folder, method="bc", settings=["train.pool_gb=1"]), tmp_path)
    again = train.train(moving_job(folder, method="bc", settings=["train.pool_gb=2"]), tmp_path)
    said = capsys.readouterr().out
    assert "windows drawn uniformly from all" in said and "moving" not in said
    assert runs[0].config == again[0].config and "pool_gb" not in runs[0].config["settings"]["train"]


def test_how_a_moving_pool_is_told_and_kept(folder, tmp_path, capsys, monkeypatch):
    moves, fits = (moving_job(folder, method="bc", settings=[f"train.pool_gb={size}"]) for size in (8e-6, 1))
    (run,) = train.train(moves, tmp_path)
    assert "windows from a moving pool" in capsys.readouterr().out
    assert run.config["settings"]["train"]["pool_gb"] == 8e-6
    assert moves.is_of(run, 0) and not fits.is_of(run, 0)
    with pytest.raises(UserError, match="pool_gb was 8e-06, now None"):
        train.train(fits, tmp_path)
    (whole,) = train.train(fits, tmp_path / "whole")
    assert fits.is_of(whole, 0) and not moves.is_of(whole, 0)
    default = moving_job(folder, method="bc", settings=["train.pool_gb=4"])
    monkeypatch.setattr(type(default), "fits", False)  # as larger data would: all of which the run held
    assert not default.is_of(whole, 0)
    with pytest.raises(UserError, match="pool_gb was None, now 4"):
        train.train(default, tmp_path / "whole")


@pytest.mark.parametrize(
    ("method", "labels", "gigabytes", "message"),
    [
        ("idm-td3bc", None, POOL_GB, "method idm-td3bc reads every episode before it trains.*raise --pool-gb"),
        ("idm-clap", None, POOL_GB, "method idm-clap reads every episode"),
        ("clap", Labels(oracle=True), POOL_GB, r"clap with all actions given \(oracle\) reads every episode"),
        ("lawm", Labels(seed=3), POOL_GB, "lawm with labels drawn anew reads every episode"),
        (
            "lawm",
            None,
            18e-6,
            "unlabeled-.*GB in memory, and a pool of 1.8e-05 GB has .*raise --pool-gb, or split again",
        ),
        ("lawm", None, -1, "train.pool_gb is -1.*, expected 0 or more"),
    ],
)
def test_what_a_pool_is_too_small_for_is_told_before_anything_is_read(
    folder, monkeypatch, method, labels, gigabytes, message
):
    monkeypatch.setattr(hub.Folder, "pull", lambda self, path: pytest.fail(f"{path} was read"))
    with pytest.raises(UserError, match=message):
        train.load_data(moving_job(folder, (0,), method, [f"train.pool_gb={gigabytes}"], labels))
