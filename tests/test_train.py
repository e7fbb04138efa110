"""The offline loop: a cut run continues the same numbers, seeds do not touch, what cannot work is told first."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lawm_data import config, files
from lawm_data.errors import UserError
from lawm_data.runs import Run
from lawm_train import methods, policy, train
from lawm_train.data import Labels, Sizes, Statistics

SETTINGS = [
    "model.deter=8", "model.stoch=4", "model.embed=6", "model.hidden=6", "model.units=6", "model.latent_action=3",
    "agent.clap.updates=6", "agent.clap.units=6", "agent.clap.horizon=2", "agent.bc.updates=10", "agent.bc.units=6",
    "agent.td3bc.updates=10", "agent.td3bc.units=6", "agent.td3bc.batch=16", "agent.td3bc.actor_every=3",
    "agent.idm.updates=6", "agent.idm.units=6", "agent.idm.batch=16", "agent.idm.choose_every=2",
    "train.updates=10", "train.batch=4", "train.window=8", "train.log_every=2", "train.checkpoint_every=4",
    "train.joint=false",
]  # fmt: skip


def job(dataset, method="lawm", seeds=(0,), settings=(), labels=None):
    configs = config.load("cpu", [*SETTINGS, *settings], policy.SECTIONS, {})
    return train.Job(dataset, "medium-replay", method, list(seeds), configs, "cpu", labels or Labels())


class Simulator:
    """One episode of one run."""

    def returns(self, policy):
        return [[1.0]]


def final(run):
    assert len(run.positions()) > 0
    return run.load(run.newest)[0]


def logged(run):
    measured = {"seconds", "memory_mb", "gpu_memory_mb"}
    return [{k: v for k, v in row.items() if k not in measured} for row in run.metrics()]


# by method, updates after which it is cut: before a checkpoint, after one, after one that follows a relabeling
CUTS = {"lawm": [3, 9], "clap": [12], "td3bc": [3, 9], "bc": [9], "idm-td3bc": [3, 12], "idm-clap": [21]}


def cut_after(monkeypatch, number, runs_root, *words):
    """A training that is interrupted before its update `number` is logged."""
    after, seen = train._Loop._after, []

    def cut(self, update, bar):
        seen.append(update)
        if len(seen) == number:
            raise KeyboardInterrupt
        after(self, update, bar)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train._Loop, "_after", cut)
        train.train(job(*words), runs_root)


@pytest.mark.parametrize(("method", "cut_at"), [(method, cut) for method, cuts in CUTS.items() for cut in cuts])
def test_a_cut_run_continues_the_very_same_numbers(dataset, tmp_path, monkeypatch, method, cut_at):
    assert CUTS.keys() == methods.METHODS.keys()
    whole = train.train(job(dataset, method, [0, 1]), tmp_path / "whole")
    cut_after(monkeypatch, cut_at, tmp_path / "cut", dataset, method, [0, 1])
    again = train.train(job(dataset, method, [0, 1]), tmp_path / "cut")
    for a, b in zip(whole, again, strict=True):
        assert a.positions()[-1] == b.positions()[-1] and logged(a) == logged(b)
        tensors, others = final(a), final(b)
        assert tensors.keys() == others.keys()
        assert all(torch.equal(tensors[name], others[name]) for name in tensors)


def test_wall_time_leaves_out_interruptions_and_what_they_undid(dataset, tmp_path, monkeypatch):
    now, after = [0.0], train._Loop._after

    def ticking(self, update, bar):
        now[0] += 1
        after(self, update, bar)

    monkeypatch.setattr(train, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(train._Loop, "_after", ticking)
    cut_after(monkeypatch, 8, tmp_path, dataset, "bc")
    assert now == [7], "three updates beyond the checkpoint"
    now[0] = 1000.0
    (run,) = train.train(job(dataset, "bc"), tmp_path)
    assert run.finished["seconds"] == 10


@pytest.mark.parametrize(("number", "minutes"), [(3, 10 + 2 * 6), (9, 2 + 2 * 6), (15, 2 * 2)])
def test_a_cut_training_announces_the_time_that_is_left(dataset, tmp_path, monkeypatch, capsys, number, minutes):
    """10 updates of the model take a minute each, 6 of the agent two; checkpoints come every fourth."""
    cost = {"model": 60.0, "agent": 120.0}
    monkeypatch.setattr(train, "seconds_per_update", lambda phase, *_, **__: cost[phase.name])
    cut_after(monkeypatch, number, tmp_path, dataset)
    capsys.readouterr()
    train.train(job(dataset), tmp_path)
    assert f"about {minutes:.1f} min" in capsys.readouterr().out


def test_a_world_model_alone_is_evaluated_at_its_end(dataset, tmp_path, monkeypatch):
    """Its policy is the control, a step on the way tells nothing of the agent."""

    monkeypatch.setattr(train, "_evaluator", lambda job: Simulator())
    (run,) = train.train(job(dataset, settings=["evaluate.every=4"]), tmp_path)
    found = [(row["phase"], row["update"]) for row in run.metrics() if row["kind"] == "evaluate"]
    assert found == [("model", 10), ("agent", 3), ("agent", 5), ("agent", 6)]


def test_a_checkpoint_before_the_first_choice_of_an_idm_is_no_failure(dataset, tmp_path):
    settings = ["train.checkpoint_every=1", "agent.idm.choose_every=4"]
    for run in train.train(job(dataset, "idm-td3bc", settings=settings), tmp_path):
        assert run.finished and not run.stopped


def test_seeds_cut_between_two_checkpoints_continue_from_the_one_they_share(dataset, tmp_path, monkeypatch):
    whole = train.train(job(dataset, seeds=[0, 1]), tmp_path / "whole")
    save = Run.save

    def cut(self, position, tensors, state):
        if position == (1, 6) and self.path.name.endswith("s1"):
            raise KeyboardInterrupt
        save(self, position, tensors, state)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "save", cut)
        train.train(job(dataset, seeds=[0, 1]), tmp_path / "cut")
    again = train.train(job(dataset, seeds=[0, 1]), tmp_path / "cut")
    for a, b in zip(whole, again, strict=True):
        assert all(torch.equal(x, final(b)[name]) for name, x in final(a).items())


def test_a_log_holds_each_seed_s_own_means(dataset, tmp_path):
    def rows(every, name):
        runs = train.train(job(dataset, "bc", [0, 1], [f"train.log_every={every}"]), tmp_path / name)
        return [[row["action"] for row in run.metrics() if row["kind"] == "train"] for run in runs]

    each, pairs = rows(1, "each"), rows(2, "pairs")
    assert len(each[0]) == 10 and each[0] != each[1]
    for ours, means in zip(each, pairs, strict=True):
        assert [sum(ours[k : k + 2]) / 2 for k in range(0, 10, 2)] == pytest.approx(means, rel=1e-5)


@pytest.mark.parametrize("method", ["lawm", "bc", "td3bc"])
def test_a_seed_beside_another_trains_as_it_does_alone(dataset, tmp_path, method):
    both = train.train(job(dataset, method, [0, 1]), tmp_path / "both")
    alone = train.train(job(dataset, method, [1]), tmp_path / "alone")
    lone = final(alone[0])
    for name, x in final(both[1]).items():
        torch.testing.assert_close(x, lone[name], rtol=1e-3, atol=1e-5, msg=name)


def test_joint_training_is_one_phase(dataset, tmp_path):
    run = train.train(job(dataset, settings=["train.joint=true"]), tmp_path)[0]
    assert {row["phase"] for row in run.metrics()} == {"joint"}
    assert run.positions()[-1] == (0, 10)


def test_a_policy_from_disk_acts_as_the_one_that_was_trained(dataset, tmp_path, monkeypatch):
    built = []
    build = methods.build
    monkeypatch.setattr(methods, "build", lambda *a: built.append(build(*a)) or built[-1])
    run = train.train(job(dataset), tmp_path)[0]
    trained, loaded = built[0].policy(), policy.load(run, run.newest).policy()
    first = torch.ones(1, 3, dtype=torch.bool)
    for _ in range(3):
        observation = torch.randn(1, 3, 5)
        assert torch.equal(trained(observation, first), loaded(observation, first))
        first = ~first if first.all() else first


def test_free_nats_of_the_slice_give_way_to_those_that_are_set(dataset):
    sizes, blank = Sizes(5, 2, False, 1.0), Statistics.blank(5)

    def built(settings=()):
        configs = job(dataset, settings=settings).configs
        return methods.build(methods.Setup("lawm", configs, [0], sizes, blank)).modules["world"].config

    assert built().free_nats == 1.0 and built(["model.free_nats=0.5"]).free_nats == 0.5


@pytest.mark.parametrize(
    ("method", "prior", "learned"),
    [("lawm", "null", False), ("clap", "null", True), ("idm-clap", "null", True), ("clap", "standard", False)],
)
def test_the_latent_action_prior_follows_the_method_unless_it_is_set(dataset, method, prior, learned):
    configs = job(dataset, settings=[f"model.prior={prior}"]).configs
    setup = methods.Setup(method, configs, [0], Sizes(5, 2, False, 1.0), Statistics.blank(5))
    built = methods.build(setup)
    assert (built.modules["world"].prior_head is not None) == learned


def test_observations_are_normalised_unless_they_are_to_stay_raw(dataset, tmp_path):
    episodes = train.load_data(job(dataset, "clap")).labeled[0]
    rows = torch.cat([torch.tensor(episode.observation) for episode in episodes])
    far = 100 * rows  # beyond what the normalised are clipped at
    for setting, expected in (("true", (rows - rows.mean(0)) / rows.std(0, correction=0)), ("false", rows)):
        run = train.train(job(dataset, "clap", settings=[f"model.normalize={setting}"]), tmp_path / setting)[0]
        normalizer = policy.load(run, run.newest).modules["world"].normalizer
        torch.testing.assert_close(normalizer(rows)[0], expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(normalizer(far)[0], far) == (setting == "false")


@pytest.mark.parametrize(
    ("every", "updates", "after"), [(5, 40, [20, 40]), (3, 40, [12, 24, 36, 40]), (4, 7, [3, 6, 7])]
)
def test_phases_of_unequal_length_are_evaluated_as_often(dataset, tmp_path, monkeypatch, every, updates, after):
    """At the same shares of it as the 10 updates of a world model, rounded up, and at its end."""

    monkeypatch.setattr(train, "_evaluator", lambda job: Simulator())
    settings = [f"evaluate.every={every}", f"agent.td3bc.updates={updates}"]
    run = train.train(job(dataset, "td3bc", settings=settings), tmp_path)[0]
    assert [row["update"] for row in run.metrics() if row["kind"] == "evaluate"] == after


def test_a_policy_refuses_observations_of_another_size(dataset, tmp_path):
    run = train.train(job(dataset, "bc"), tmp_path)[0]
    act = policy.Policy.from_pretrained(run.path)
    with pytest.raises(ValueError, match=r"observation has shape \(3, 6\), expected \(5,\) or \(batch, 5\)"):
        act(np.zeros((3, 6)))
    with pytest.raises(ValueError, match="not finite"):
        act(np.full(5, np.nan))
    act(np.zeros((3, 5)))
    with pytest.raises(ValueError, match=r"shape \(5,\), before it had \(3, 5\); call reset"):
        act(np.zeros(5))
    act.reset()
    assert act(np.zeros(5)).shape == (2,)
    act.reset()
    assert act(np.zeros((0, 5))).shape == (0, 2)


def test_a_copy_of_a_checkpoint_is_none(dataset, tmp_path):
    run = train.train(job(dataset, "bc"), tmp_path)[0]
    kept = run.positions()
    shutil.copytree(run.path / "checkpoint-0-00000010", run.path / "checkpoint-0-00000010.old")
    assert run.positions() == kept


def test_a_damaged_checkpoint_is_one_line(dataset, tmp_path):
    run = train.train(job(dataset, "bc"), tmp_path)[0]
    path = next(run.path.glob("checkpoint-*-00000010/tensors.safetensors"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="not a readable checkpoint"):
        policy.load(run, run.newest)


def bc_of_other_sizes(one, two):
    shutil.copy(two / "tensors.safetensors", one)


def no_state(one, _):
    files.write_json(one / "state.json", {})


def a_list_as_state(one, _):
    files.write_json(one / "state.json", [])


def a_list_of_steps(one, _):
    files.write_json(one / "state.json", {"optimizer_steps": []})


def lists_of_steps(one, _):
    steps = files.read_json(one / "state.json")["optimizer_steps"]
    files.write_json(one / "state.json", {"optimizer_steps": dict.fromkeys(steps, [])})


@pytest.mark.parametrize("damage", [bc_of_other_sizes, no_state, a_list_as_state, a_list_of_steps, lists_of_steps])
def test_a_checkpoint_of_another_run_is_one_line(dataset, tmp_path, damage):
    run, other = (
        train.train(job(dataset, "bc", settings=[f"agent.bc.units={units}"]), tmp_path, f"units{units}")[0]
        for units in (8, 16)
    )
    damage(run.checkpoint(run.newest), other.checkpoint(other.newest))
    with pytest.raises(UserError, match=r"checkpoint-0-00000010.*remove its folder to go back one"):
        policy.load(run, run.newest)


def test_a_method_without_a_world_model_has_no_prior_to_act_by(dataset, tmp_path):
    run = train.train(job(dataset, "bc"), tmp_path)[0]
    with pytest.raises(UserError, match="no world model"):
        policy.Policy.from_pretrained(run.path, "prior")


def test_a_policy_of_another_name_is_none(dataset, tmp_path):
    run = train.train(job(dataset, "bc"), tmp_path)[0]
    with pytest.raises(UserError, match="no policy 'Prior'; there are agent and prior"):
        policy.Policy.from_pretrained(run.path, "Prior")


def test_labels_alone_feed_the_methods_that_use_labels_alone(dataset):
    data, both = train.load_data(job(dataset, "clap")), train.load_data(job(dataset, "lawm"))
    assert data.unlabeled == [[]] and len(both.unlabeled[0]) == 8
    rows = torch.cat([torch.tensor(episode.observation) for episode in data.labeled[0]])
    mean, _ = data.statistics().all
    torch.testing.assert_close(mean[0, 0], rows.mean(0))
    assert not torch.equal(mean, both.statistics().all[0])
    assert torch.equal(mean, both.statistics().labeled[0])


def test_configs_round_trip_through_a_run(dataset, tmp_path):
    one = job(dataset, "bc")
    run = train.train(one, tmp_path)[0]
    assert config.from_dict(run.config["settings"], policy.SECTIONS, "config.json") == one.configs
