"""Seeds that are asked for later: what is there stays, what is missing trains, nothing starts again."""

from __future__ import annotations

import json

import pytest
import torch
from test_train import final, job, logged

from lawm_data.errors import UserError
from lawm_data.runs import Position, Run, side_by_side
from lawm_train import train


def contents(run):
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def equal(a, b):
    tensors, others = final(a), final(b)
    return tensors.keys() == others.keys() and all(torch.equal(x, others[name]) for name, x in tensors.items())


def cut_at(monkeypatch, phase, update):
    """Interrupt before what is due after that update, in the block that follows."""
    after = train._Loop._after

    def cut(self, done, bar):
        if (self.number, done) == (phase, update):
            raise KeyboardInterrupt
        after(self, done, bar)

    monkeypatch.setattr(train._Loop, "_after", cut)


def test_a_finished_seed_is_left_as_it_is_and_the_missing_ones_train(dataset, tmp_path, capsys):
    (first,) = train.train(job(dataset), tmp_path / "runs")
    before = contents(first)
    runs = train.train(job(dataset, seeds=[0, 1, 2]), tmp_path / "runs")
    assert contents(first) == before and ", seeds 1, 2, " in capsys.readouterr().out
    fresh = train.train(job(dataset, seeds=[1, 2]), tmp_path / "fresh")
    for a, b in zip(runs[1:], fresh, strict=True):
        assert equal(a, b) and logged(a) == logged(b)


def trained(rows):
    return [row for row in rows if row["kind"] == "train"]


LAST = {"lawm": "agent.clap.updates", "td3bc": "agent.td3bc.updates", "idm-clap": "agent.clap.updates"}


@pytest.mark.parametrize(
    ("method", "joint", "setting"),
    [*((name, False, key) for name, key in LAST.items()), ("lawm", True, "train.updates")],
)
def test_more_updates_continue_a_finished_run_as_if_asked_at_once(dataset, tmp_path, method, joint, setting):
    def run(root, updates):
        settings = [f"train.joint={str(joint).lower()}", f"{setting}={updates}"]
        return train.train(job(dataset, method, [0, 1], settings), tmp_path / root)

    whole, _ = run("whole", 16), run("parts", 8)
    with pytest.raises(UserError, match=f"{setting} was 8, now 6"):
        run("parts", 6)
    parts = run("parts", 16)
    for a, b in zip(parts, whole, strict=True):
        assert equal(a, b) and trained(logged(a)) == trained(logged(b))
        assert a.config["settings"] == b.config["settings"]
        assert [row["update"] for row in a.metrics() if row["kind"] == "finished"] == [16]
    before = [contents(one) for one in parts]
    assert [contents(one) for one in run("parts", 16)] == before


def test_a_run_that_is_to_go_on_is_not_finished(dataset, tmp_path):
    (run,) = train.train(job(dataset, "bc"), tmp_path)
    asked = {**run.config, "settings": {**run.config["settings"]}}
    asked["settings"]["agent"] = {
        **asked["settings"]["agent"],
        "bc": {**asked["settings"]["agent"]["bc"], "updates": 99},
    }
    assert run.finished and run.is_extended(asked, "agent.bc.updates") and run.finished, "asking changes nothing"
    run.begin(asked, "agent.bc.updates")
    assert not run.finished and run.config == asked


def test_a_finished_seed_goes_on_from_its_end_and_new_ones_begin_beside_it(dataset, tmp_path, capsys):
    """Also where its end is its only checkpoint."""
    (first,) = train.train(job(dataset, "bc", [0], ["train.checkpoint_every=99"]), tmp_path)
    assert len(first.positions()) == 1
    longer = ["train.checkpoint_every=99", "agent.bc.updates=14"]
    capsys.readouterr()
    runs = train.train(job(dataset, "bc", [0, 1], longer), tmp_path)
    assert "seed 0, " in (said := capsys.readouterr().out) and "continuing at update 10 of phase bc" in said
    lines = [json.loads(line) for line in (first.path / "metrics.jsonl").read_text().splitlines()]
    updates = [row["update"] for row in trained(lines)]
    assert updates and len(updates) == len({*updates}), "nothing was done twice"
    for run, seed in zip(runs, (0, 1), strict=True):
        (whole,) = train.train(job(dataset, "bc", [seed], longer), tmp_path / "whole")
        assert equal(run, whole)


def test_seeds_without_a_common_checkpoint_continue_apart(dataset, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        cut_at(patch, 1, 5)
        train.train(job(dataset), tmp_path / "runs")
    whole = [train.train(job(dataset, seeds=[seed]), tmp_path / "whole")[0] for seed in (0, 1)]
    runs = train.train(job(dataset, seeds=[0, 1]), tmp_path / "runs")
    assert all(equal(a, b) for a, b in zip(runs, whole, strict=True))
    assert sum(row["kind"] == "finished" for run in runs for row in run.metrics()) == 2


def test_a_finished_seed_with_other_settings_is_refused(dataset, tmp_path):
    train.train(job(dataset, "bc"), tmp_path)
    with pytest.raises(UserError, match="agent.bc.lr was 0.0003, now 0.1"):
        train.train(job(dataset, "bc", seeds=[0, 1], settings=["agent.bc.lr=0.1"]), tmp_path)
    assert not Run(tmp_path / "custom-made-medium-replay-bc-s1").exists


def test_checkpoints_beyond_the_shared_one_are_dropped(dataset, tmp_path):
    runs = train.train(job(dataset, "bc", seeds=[0, 1]), tmp_path)
    torn = runs[1].path / "checkpoint-0-00000010"
    (torn / "state.json").unlink()
    ahead = runs[0].path / "checkpoint-0-00000010" / "state.json"
    stale = ahead.read_text().replace('"seconds": ', '"seconds": 1000')
    ahead.write_text(stale)
    train.train(job(dataset, "bc", seeds=[1]), tmp_path)
    assert runs[1].positions()[-1] == (0, 10) and ahead.read_text() == stale, "a finished seed is not continued"


def test_groups_share_a_position_and_the_furthest_goes_first(tmp_path):
    def run(name, *updates):
        made = Run(tmp_path / name)
        for update in updates:
            made.save(Position(0, update), {"x": torch.zeros(1)}, {})
        return made

    far, near, fresh, new = run("far", 8, 12), run("near", 4, 8), run("fresh", 4), run("new")
    assert side_by_side([new, near, fresh, far]) == [[far, near], [fresh], [new]]
    assert side_by_side([far, new]) == [[far], [new]] and side_by_side([]) == []


def test_what_a_kill_leaves_of_an_old_checkpoint_is_swept(tmp_path, monkeypatch):
    run = Run(tmp_path / "run")

    def killed(path, *rest, **others):
        (path / "state.json").unlink()
        raise KeyboardInterrupt

    run.begin({"env": "made"})
    for update in (1, 2):
        run.save(Position(0, update), {"x": torch.zeros(2)}, {})
    with monkeypatch.context() as patch:
        patch.setattr("lawm_data.files.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            run.discard(Position(0, 1))
    assert run.positions() == [Position(0, 1)]
    run.begin({"env": "made"})
    assert {path.name for path in run.path.iterdir()} == {"config.json", "checkpoint-0-00000001"}


def test_an_extended_seed_goes_on_from_its_end_beside_one_that_was_cut(dataset, tmp_path, monkeypatch):
    longer = ["agent.bc.updates=16"]
    whole = [train.train(job(dataset, "bc", [seed], longer), tmp_path / "whole")[0] for seed in (0, 1)]
    (first,) = train.train(job(dataset, "bc", [0]), tmp_path / "parts")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        cut_at(patch, 0, 9)
        train.train(job(dataset, "bc", [1]), tmp_path / "parts")
    assert Position(0, 8) in first.positions(), "which the other has too"
    began = []
    fit = train.fit
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # once both configs ask for more
        patch.setattr(train, "fit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        train.train(job(dataset, "bc", [0, 1], longer), tmp_path / "parts")
    monkeypatch.setattr(train, "fit", lambda session, phases, start: began.append(start) or fit(session, phases, start))
    parts = train.train(job(dataset, "bc", [0, 1], longer), tmp_path / "parts")
    assert began == [Position(0, 10), Position(0, 8)]
    assert all(equal(a, b) for a, b in zip(parts, whole, strict=True))


def test_each_seed_keeps_its_own_wall_time(dataset, tmp_path, monkeypatch):
    """Also where it goes on beside others that took less."""
    ticks = [0.0]
    monkeypatch.setattr(train.time, "perf_counter", lambda: ticks[0])
    step = train._Loop._after

    def after(seconds):
        return lambda self, update, bar: (ticks.__setitem__(0, ticks[0] + seconds), step(self, update, bar))[1]

    for seed, seconds in ((0, 1.0), (1, 5.0)):
        monkeypatch.setattr(train._Loop, "_after", after(seconds))
        train.train(job(dataset, "bc", [seed]), tmp_path)
    monkeypatch.setattr(train._Loop, "_after", after(2.0))
    runs = train.train(job(dataset, "bc", [0, 1], ["agent.bc.updates=12"]), tmp_path)
    assert [run.finished["seconds"] for run in runs] == [10 + 4, 50 + 4]
