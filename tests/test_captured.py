"""Recorded updates do what updates do. On a CPU a stand-in records, by a graph's rules: fixed memory, one result."""

from dataclasses import replace

import models
import pytest
import test_dreamer
import torch
from test_train import CUTS, final, job, logged

from lawm_data.nets import captured
from lawm_data.nets.blocks import Noise
from lawm_data.nets.captured import Captured
from lawm_train import train

ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
STRIDE = ["train.joint=true", "agent.clap.stride=2"]


class Repeater:
    """Does again what was recorded, from the same memory, and writes over the result that it gave before."""

    recorded: list[torch.Tensor] = []

    def __init__(self, device):
        pass

    def first(self, run):
        return run()

    def record(self, run):
        result = torch.empty(0)
        self.recorded.append(result)

        def replay():
            now = run()
            return result.resize_(now.shape).copy_(now)

        return replay


@pytest.fixture
def recorded(monkeypatch):
    """What was recorded so far."""
    monkeypatch.setattr(Repeater, "recorded", [])
    monkeypatch.setitem(captured.RECORDERS, "cpu", Repeater)
    return Repeater.recorded


def trained(job, folder):
    """Tensors and logged rows of every seed."""
    return [(final(run), logged(run)) for run in train.train(job, folder)]


@pytest.mark.parametrize(("method", "settings"), [*((method, ()) for method in CUTS), ("lawm", STRIDE)])
def test_training_by_recorded_updates_gives_the_very_same_numbers(
    dataset,  # noqa: F811
    tmp_path,
    monkeypatch,
    method,
    settings,
):
    asked = job(dataset, method, [0, 1], settings)
    plain = trained(asked, tmp_path / "plain")
    with monkeypatch.context() as patch:
        patch.setitem(captured.RECORDERS, "cpu", Repeater)
        patch.setattr(Repeater, "recorded", [])
        for (tensors, rows), (others, other_rows) in zip(trained(asked, tmp_path / "recorded"), plain, strict=True):
            torch.testing.assert_close(tensors, others, rtol=0, atol=0)
            assert rows == other_rows
        assert Repeater.recorded


def test_every_course_of_an_update_is_recorded_once(dataset, recorded):  # noqa: F811
    asked = job(dataset, "td3bc")
    data = train.load_data(asked)
    (phase,) = train.build(asked, data).phases(data)
    for i in range(10):
        phase.step(i)
    assert len(recorded) == 3, "agent.td3bc.actor_every"


@pytest.mark.parametrize(("method", "setting"), [("td3bc", "actor_every=3"), ("lawm", "stride=4")])
def test_the_time_that_is_told_beforehand_is_that_of_recorded_updates(dataset, recorded, method, setting):  # noqa: F811
    """What is timed comes after each course of an update was recorded."""
    part = "td3bc" if method == "td3bc" else "clap"
    asked = job(dataset, method, settings=["train.joint=true", f"agent.{part}.{setting}"])
    data = train.load_data(asked)
    (phase,) = train.build(asked, data).phases(data)
    assert phase.period == int(setting[-1])
    seen = []
    train._seconds(replace(phase, step=lambda i: seen.append(len(recorded)) or phase.step(i)), "cpu")
    half = len(seen) // 2
    assert len(recorded) == phase.period and set(seen[half:]) == {phase.period}


@pytest.mark.parametrize("curious", [False, True])
def test_a_collectors_recorded_updates_are_its_updates(recorded, curious):
    made = test_dreamer.made()
    ours, theirs = test_dreamer.agent(curious=curious), test_dreamer.agent(curious=curious)
    update = Captured(ours.update, ours.config.stride)
    for i in range(8):
        batch = made.batch(i, "replay")
        given = update(batch, Noise([0], "learn", i))
        assert given == theirs.update(batch, Noise([0], "learn", i)), i
    assert len(recorded) == ours.config.stride
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)


def test_metrics_stay_what_they_were_when_the_next_update_has_been(recorded):
    update = Captured(lambda x, noise: {"x": x + noise.normal(1, 1, 1)[0, :, 0, 0]})
    given = [update(torch.tensor([float(i)]), Noise([0], "made", i))["x"] for i in range(4)]
    assert given == [i + Noise([0], "made", i).normal(1, 1, 1)[0, :, 0, 0] for i in range(4)]


def test_what_a_graph_could_not_follow_is_refused(recorded):
    update = Captured(lambda x, noise: {"x": x.sum(0, keepdim=True)})
    update(torch.zeros(2), Noise([0], "made", 0))
    with pytest.raises(AssertionError):
        update(torch.zeros(3), Noise([0], "made", 1))
    batches, update = models.windows(), Captured(lambda batch, noise: {"x": batch.reward.sum((0, 2))})
    update(batches.batch(0), Noise([0], "made", 0))
    with pytest.raises(AssertionError):
        update(models.windows(counts=(4, 3)).batch(0), Noise([0], "made", 1))
    drawing = captured._Held(Noise([0], "made", 0))
    drawing.normal(1, 2, 3)
    drawing.refill(Noise([0], "made", 1))
    with pytest.raises(AssertionError):
        drawing.normal(1, 2, 4)


@ON_GPU
@pytest.mark.parametrize(("method", "settings"), [*((method, ()) for method in CUTS), ("lawm", STRIDE)])
def test_graphs_train_as_updates_do(dataset, tmp_path, monkeypatch, method, settings):  # noqa: F811
    asked = job(dataset, method, [0, 1], [*settings, "train.device=cuda"])
    graphs = trained(asked, tmp_path / "graphs")
    monkeypatch.setattr(captured, "RECORDERS", {})
    for (tensors, rows), (others, other_rows) in zip(graphs, trained(asked, tmp_path / "plain"), strict=True):
        torch.testing.assert_close(tensors, others, rtol=1e-3, atol=1e-4)
        assert [row.keys() for row in rows] == [row.keys() for row in other_rows]


@ON_GPU
def test_a_run_cut_on_a_gpu_continues(dataset, tmp_path):  # noqa: F811
    whole = train.train(job(dataset, "lawm", settings=["train.device=cuda", *STRIDE]), tmp_path / "whole")
    short = job(dataset, "lawm", settings=["train.device=cuda", *STRIDE, "train.updates=4"])
    longer = job(dataset, "lawm", settings=["train.device=cuda", *STRIDE])
    train.train(short, tmp_path / "cut")
    (cut,) = train.train(longer, tmp_path / "cut")
    torch.testing.assert_close(final(cut), final(whole[0]), rtol=1e-3, atol=1e-4)
