"""A seed whose numbers are not finite is stopped alone: the others train on, and the command says so at its end."""

from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from test_train import SETTINGS, final, job, logged

import lawm_train.cli
from lawm_data.errors import UserError
from lawm_train import methods, train

BROKEN_AT = 6  # the sixth update of the world model; checkpoints are due at 4, 8 and 10


@pytest.fixture
def broken(monkeypatch):
    """A function that lets model k's weights become NaN in update BROKEN_AT of the first phase."""

    def break_(k, part="decoder"):
        phases = methods.ModelBased.phases

        def with_damage(self, data):
            first, *rest = phases(self, data)

            def step(i):
                if i == BROKEN_AT - 1:
                    next(getattr(self.world, part).parameters()).data[k] = torch.nan
                return first.step(i)

            return [replace(first, step=step), *rest]

        monkeypatch.setattr(methods.ModelBased, "phases", with_damage)

    return break_


def test_the_other_seeds_go_on_and_never_notice(dataset, tmp_path, broken):
    whole = train.train(job(dataset, seeds=[0, 1]), tmp_path / "whole")
    broken(1)
    healthy, stopped = train.train(job(dataset, seeds=[0, 1]), tmp_path / "broken")
    assert healthy.stopped is None and logged(healthy) == logged(whole[0])
    assert all(torch.equal(x, final(whole[0])[name]) for name, x in final(healthy).items())
    row = stopped.stopped
    assert (row["phase"], row["update"], row["term"]) == ("model", BROKEN_AT, "observation/labeled")
    assert row["checkpoint"] == {"phase": 0, "update": 4} and stopped.positions() == [(0, 4)]
    assert [row["kind"] for row in stopped.metrics()][-1] == "stopped"


def test_weights_that_the_last_update_broke_are_neither_saved_nor_evaluated(dataset, tmp_path, monkeypatch):
    build = train.build

    def fragile(job, data):
        method = build(job, data)
        world_update, steps = method.modules["world"].update, []

        def update(batch, noise):
            result = world_update(batch, noise)
            if len(steps) == 9:  # after the last of 10 updates
                next(method.modules["world"].decoder.parameters()).data[1] = torch.nan
            steps.append(0)
            return result

        method.modules["world"].update = update
        return method

    monkeypatch.setattr(
        train, "build", lambda job, data: fragile(job, data) if len(data.labeled_counts) == 2 else build(job, data)
    )
    healthy, stopped = train.train(job(dataset, seeds=[0, 1]), tmp_path)
    assert healthy.finished and stopped.stopped["term"] == "a weight" and stopped.stopped["update"] == 10
    assert stopped.newest.update == 8


def test_a_run_without_its_config_is_not_done(dataset, tmp_path):
    (run,) = train.train(job(dataset, "bc"), tmp_path)
    (run.path / "config.json").rename(tmp_path / "config.json")
    with pytest.raises(UserError, match="-bc-s0: holds a run without its config.json"):
        train.train(job(dataset, "bc"), tmp_path)
    (tmp_path / "config.json").rename(run.path / "config.json")
    before = final(run)
    (run.checkpoint(run.newest) / "tensors.safetensors").unlink()
    (again,) = train.train(job(dataset, "bc"), tmp_path)  # from the checkpoint before
    assert all(torch.equal(x, before[name]) for name, x in final(again).items())


@pytest.mark.parametrize("name", ["../x", "a/b", "x/"])
def test_a_name_that_is_a_path_is_refused(dataset, tmp_path, name):
    with pytest.raises(UserError, match="expected a name without folders"):
        train.train(job(dataset, "bc"), tmp_path, name)


def test_a_stopped_seed_stays_stopped_when_the_others_are_continued(dataset, tmp_path, monkeypatch, broken):
    broken(1)
    whole = train.train(job(dataset, seeds=[0, 1]), tmp_path / "whole")
    after = train._Loop._after

    def cut(self, update, bar):
        after(self, update, bar)
        if self.number == 1 and update == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(train._Loop, "_after", cut)
    with pytest.raises(KeyboardInterrupt):
        train.train(job(dataset, seeds=[0, 1]), tmp_path / "cut")
    monkeypatch.setattr(train._Loop, "_after", after)
    again = train.train(job(dataset, seeds=[0, 1]), tmp_path / "cut")
    assert again[0].positions()[-1] == (1, 6) and again[1].stopped == {
        **whole[1].stopped,
        "seconds": again[1].stopped["seconds"],
    }
    for name, x in final(again[0]).items():
        torch.testing.assert_close(x, final(whole[0])[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_stopped_seed_does_not_spoil_the_evaluation_of_the_others(dataset, tmp_path, monkeypatch, broken, lost):
    class Simulator:
        def returns(self, policy):
            action = policy(torch.zeros(2, 3, 5), torch.ones(2, 3, dtype=torch.bool))
            assert torch.isfinite(action).all() and action[1 - lost].any()
            return [[1.0, 3.0], [2.0, 6.0]]

    monkeypatch.setattr(train, "_evaluator", lambda job: Simulator())
    broken(lost, "encoder")  # by which it acts
    runs = train.train(job(dataset, seeds=[0, 1]), tmp_path)
    healthy, stopped = runs[1 - lost], runs[lost]
    rows = [row for row in healthy.metrics() if row["kind"] == "evaluate"]
    assert rows and {row["mean"] for row in rows} == {[2.0, 4.0][1 - lost]}
    assert all(row["returns"] == [[1.0, 3.0], [2.0, 6.0]][1 - lost] for row in rows)
    assert not [row for row in stopped.metrics() if row["kind"] == "evaluate"]


def test_the_command_ends_with_1_and_a_line_for_each_stopped_seed(dataset, broken):
    broken(0)
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    command = ["--hub-dataset", str(dataset.source.path), "--seeds", "2", "--name", "run", *settings]
    answer = CliRunner().invoke(lawm_train.cli.main, command)
    assert answer.exit_code == 1, answer.output
    assert answer.stdout.splitlines()[-1] == "done: lawm/runs/run-s1"
    (line,) = [line for line in answer.stderr.splitlines() if line.startswith("stopped: ")]
    for word in ("run-s0", "observation/labeled", "update 6 of phase model", "checkpoint-0-00000004"):
        assert word in line


def test_nothing_is_done_once_every_seed_is_stopped(dataset, tmp_path, broken):
    broken(0)
    (run,) = train.train(job(dataset), tmp_path)
    before = list(run.metrics())
    assert before[-1]["kind"] == "stopped" and len(before) == 3
    train.train(job(dataset), tmp_path)
    assert list(run.metrics()) == before


def test_the_last_row_tells_what_a_run_cost(dataset, tmp_path):
    (run,) = train.train(job(dataset, "td3bc"), tmp_path)
    last = list(run.metrics())[-1]
    assert last["kind"] == "finished" and last["seconds"] >= 0 and last["memory_mb"] > 50 and last["seeds"] == 1


def test_a_seed_whose_actions_overflow_stops_no_other(dataset, tmp_path, monkeypatch):
    """Its weights are finite."""

    class Asking:
        def returns(self, act):
            actions = act(torch.zeros(2, 1, 3), torch.ones(2, 1, dtype=torch.bool))
            assert actions.isfinite().all(), "the simulator refuses others"
            return actions.flatten(1).tolist()

    acted = torch.tensor([0.5, torch.nan])[:, None, None]
    monkeypatch.setattr(methods.ModelFree, "policy", lambda self: lambda observation, first: acted)
    monkeypatch.setattr(train, "_evaluator", lambda job: Asking())
    healthy, stopped = train.train(job(dataset, "bc", seeds=[0, 1]), tmp_path)
    assert healthy.finished and not healthy.stopped
    assert [row["returns"] for row in healthy.metrics() if row["kind"] == "evaluate"] == [[0.5]]
    assert stopped.stopped["term"] == "an action" and not stopped.finished
    assert not [row for row in stopped.metrics() if row["kind"] == "evaluate"]
