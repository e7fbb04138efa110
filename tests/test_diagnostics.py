"""The ladder: each rung passes a model that has learned and fails one that was broken in the way it looks for."""

import copy
import math
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import models
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers import random_episode
from made_dataset import made_episodes, make_dataset
from made_runs import make_run
from test_split import made, split, store
from test_train import job

import lawm_train.cli
from lawm_data import envs, files, hub, rollout
from lawm_data.envs import Step
from lawm_data.errors import UserError
from lawm_data.nets.blocks import Noise, Normalizer
from lawm_data.nets.dists import Gaussian
from lawm_data.runs import Position, Run
from lawm_train import acting, clap, diagnostics, idm, policy, results, rungs, stream, train
from lawm_train.data import Labels
from lawm_train.evaluate import FIRST_SEED

LENGTH = 12
MIX = np.random.default_rng(7).normal(size=(2, 5)).astype(np.float32)  # of helpers.random_episode


class LinearEnv:
    """The system of `helpers.random_episode` as an environment."""

    def reset(self, seed):
        self.left = 60
        self.observation = np.random.default_rng(seed).normal(size=5).astype(np.float32)
        return self.observation

    def step(self, action):
        self.left -= 1
        self.observation = (0.9 * self.observation + action @ MIX).astype(np.float32)
        reward = float(np.clip(0.5 + 0.3 * np.tanh(self.observation[0]), 0, 2))
        return Step(self.observation, reward, self.left == 0, False)


def episodes_of(policy, count=3):
    """Episodes of one model's policy, from the seeds of the evaluator."""

    def act(observation, first):
        return policy(torch.from_numpy(observation)[None], torch.from_numpy(first)[None])[0].numpy()

    with torch.no_grad():
        seeds = range(FIRST_SEED, FIRST_SEED + count)
        calls = {"env": "custom:made", "source": "evaluate", "seed": 0}
        return list(rollout.episodes([LinearEnv() for _ in range(count)], act, seeds, **calls))


@pytest.fixture(scope="module")
def learned():
    """A small model after a few hundred updates on a linear system that is pushed by its actions."""
    made = models.windows(counts=(8, 8), window=LENGTH, recorded=models.episodes(30, 60))
    world = models.world(
        made, deter=24, stoch=8, embed=16, hidden=24, units=32, latent_action=4, free_nats=0.0, lr=3e-3
    )
    for i in range(400):
        world.update(made.batch(i), Noise([0], "model", i))
    agent = clap.Agent(clap.Config(units=8), world, [0])
    held_out = models.windows(counts=(32, 0), window=LENGTH, recorded=models.episodes(40, 60)[-6:])
    return world, agent, held_out.batch(0)


@pytest.fixture
def trained(learned, monkeypatch):
    """The model, the agent in its imagination, held-out windows; what a test breaks is mended after it."""
    monkeypatch.setattr(rungs, "CONTEXT", 4)
    monkeypatch.setattr(rungs, "HORIZONS", (1, 3, 6))
    modules = learned[:2]
    kept = [{name: value.clone() for name, value in module.state_dict().items()} for module in modules]
    with torch.no_grad():
        yield learned
    for module, state in zip(modules, kept, strict=True):
        module.load_state_dict(state)


def last(mlp):
    """The last layer."""
    return mlp.layers[-1]


def test_1_a_model_that_learned_passes(trained):
    world, _, batch = trained
    rung = rungs.labeled_path(world, batch)
    assert rung.passed, rung
    assert list(rung.bounds.values()) == [(2, None), (0.2, None), (None, 0.3)]


def test_1_the_error_is_in_units_of_each_dimension_s_own_variance(trained):
    """Actions whose dimensions have unlike means do not look better for it."""
    world, _, batch = trained
    apart = replace(batch, action=batch.action + torch.tensor([50.0, 0.0]))
    seen = world.observe(apart, Noise([0], "diagnostics", 0))
    wrong = (world.decode_action(seen.states.feat[:-1], seen.latent.mean) - apart.action).square().mean()
    spread = np.var(apart.action.numpy(), axis=(0, 1, 2), ddof=1).mean()
    ratio = rungs.labeled_path(world, apart).figures["held-out action error / variance"]
    assert ratio == pytest.approx(float(wrong) / spread, rel=1e-4)


def test_1_a_decoder_that_ignores_u_fails(trained):
    world, _, batch = trained
    world.action_decoder.layers[0].weight[:, -world.config.latent_action :] = 0
    rung = rungs.labeled_path(world, batch)
    assert not rung.passed and rung.figures["spread of the decoded action"] < 1e-6
    assert "the decoder ignores u" in rung.verdict and "does not carry" in rung.verdict
    assert "prior" not in rung.verdict and "unused" not in rung.verdict


@pytest.mark.parametrize("free", [0.0, 3.0])
def test_1_a_posterior_that_says_nothing_fails_whatever_nats_are_free(trained, monkeypatch, free):
    world, _, batch = trained
    monkeypatch.setattr(world, "config", replace(world.config, latent_free_nats=free))
    last(world.action_posterior).weight.zero_()
    last(world.action_posterior).bias.zero_()
    rung = rungs.labeled_path(world, batch)
    assert not rung.passed and rung.figures["KL(u) nats"] < 2 and "unused" in rung.verdict


@torch.no_grad()
def test_1_a_narrow_learned_prior_is_told():
    made = models.windows(counts=(5, 0))
    world = models.world(made, prior="learned")
    last(world.prior_head).weight.zero_()
    last(world.prior_head).bias[:] = torch.tensor([5.0] * 3 + [-20.0] * 3)  # mean and deviation of u
    rung = rungs.labeled_path(world, made.batch(0))
    assert rung.figures["KL(u) nats"] > 2 and "u of the learned prior" in rung.verdict


def inferred(world):
    made = models.episodes(12, 60)
    config = idm.Config(updates=300, units=32, batch=64, dropout=0.0, lr=3e-3)
    return rungs.inferred_actions(world, made[:3], made[3:], config)


def test_2_inferred_actions_as_good_as_a_supervised_idm_pass(trained):
    rung = inferred(trained[0])
    assert list(rung.bounds.values()) == [(0.9 * rung.figures["R2 supervised IDM"], None), (0.5, None)]
    assert rung.passed and 0.5 < rung.figures["R2 inferred"] <= 1 and 0.5 < rung.figures["R2 supervised IDM"] <= 1
    assert rung.figures["R2 without o'"] < rung.figures["R2 drawn"] < rung.figures["R2 inferred"]
    assert rung.figures["R2 without o'"] < 0.5 < rung.figures["KL(q(u|s,o')) nats"]


def test_2_where_neither_tells_more_than_the_mean_nothing_is_inferred(trained, monkeypatch):
    monkeypatch.setattr(rungs, "r_squared", lambda *_: -0.5)
    rung = inferred(trained[0])
    assert not rung.passed and rung.bounds["R2 inferred"] == (0, None) and "label more episodes" in rung.verdict


def test_2_the_reference_is_normalised_by_the_rows_that_it_learns_from(trained, monkeypatch):
    fitted, fit = [], idm.fit
    monkeypatch.setattr(idm, "fit", lambda *given: fitted.append(given) or fit(*given))
    inferred(trained[0])
    ((_, learned, normalizer),) = fitted
    rows = np.concatenate([episode.observation for episode in learned])
    np.testing.assert_allclose(normalizer.mean[0, 0], rows.mean(0), atol=1e-5)


def test_2_an_inference_that_sees_nothing_fails(trained):
    last(trained[0].inverse_dynamics).weight.zero_()
    last(trained[0].inverse_dynamics).bias.zero_()
    rung = inferred(trained[0])
    assert not rung.passed and rung.figures["R2 inferred"] < 0.5 and "worse than an IDM" in rung.verdict
    assert rung.figures["R2 inferred"] == pytest.approx(rung.figures["R2 without o'"], abs=1e-5)


def test_2_a_collapsed_inference_fails_however_well_the_prior_s_mean_tells_the_actions(trained, monkeypatch):
    last(trained[0].inverse_dynamics).weight.zero_()
    last(trained[0].inverse_dynamics).bias.zero_()  # standard deviations of 1.1
    monkeypatch.setattr(rungs, "r_squared", lambda *_: 0.9)
    rung = inferred(trained[0])
    assert not rung.passed and rung.figures["KL(q(u|s,o')) nats"] < 0.1 and "is the prior" in rung.verdict


def test_3_a_model_that_learned_passes_and_needs_its_actions(trained):
    world, _, batch = trained
    rung = rungs.open_loop(world, batch, infers=True)
    assert rung.passed, rung
    assert list(rung.bounds.values()) == [(None, 1), (None, 1), (None, 1.5)]
    assert rung.figures["true h=1"] < rung.figures["true h=6"] < 1
    assert rung.figures["true / another window's h=6"] < 1 / 1.5


def test_3_a_private_code_fails(trained):
    """Inferred actions are decoded with the wrong sign, and the dynamics read them so: right together, wrong alone."""
    world, _, batch = trained
    world.rssm.input.layers[0].weight[:, -2:] *= -1
    last(world.action_decoder).weight.neg_()
    last(world.action_decoder).bias.neg_()
    rung = rungs.open_loop(world, batch, infers=True)
    assert not rung.passed and "private code" in rung.verdict and "predict nothing" not in rung.verdict


def test_3_dynamics_that_predict_nothing_fail(trained):
    world, _, batch = trained
    last(world.decoder).weight.zero_()
    last(world.decoder).bias.fill_(2)
    rung = rungs.open_loop(world, batch, infers=True)
    assert not rung.passed and "predict nothing" in rung.verdict and "private" not in rung.verdict


def test_3_dynamics_that_ignore_the_actions_fail(trained):
    world, _, batch = trained
    world.rssm.input.layers[0].weight[:, -2:] = 0
    rung = rungs.open_loop(world, batch, infers=False)
    assert rung.figures["true / another window's h=6"] == pytest.approx(1)
    assert not rung.passed and "do not follow the actions" in rung.verdict


def test_3_raw_observations_are_judged_in_units_of_their_spread(trained):
    """The mean of the data, predicted for ever, errs by about 1 whatever the units; without inference it decides."""
    learned, _, batch = trained
    world = copy.deepcopy(learned)
    raw = replace(batch, observation=100 * batch.observation)
    world.config, world.normalizer = replace(world.config, normalize=False), Normalizer.identity(world.normalizer.mean)
    last(world.decoder).weight.zero_()
    last(world.decoder).bias.copy_(raw.observation.mean((0, 1, 2)))
    rung = rungs.open_loop(world, raw, infers=False)
    assert "true h=6" in rung.bounds and all(0.7 < value < 1.3 for value in rung.figures.values()), rung


@pytest.mark.parametrize(("option", "value"), [("observation_floor", 5.0), ("observation_clip", 0.3)])
def test_3_other_bounds_of_observations_do_not_pass_for_prediction(trained, option, value):
    learned, _, batch = trained
    world, shape = copy.deepcopy(learned), learned.normalizer.mean
    world.config = replace(world.config, **{option: value})
    bounds = {"floor": 5.0} if option == "observation_floor" else {"clip": 0.3}
    world.normalizer = Normalizer(shape, torch.ones_like(shape), **bounds)
    last(world.decoder).weight.zero_()
    last(world.decoder).bias.copy_(world.normalizer(batch.observation).mean((0, 1, 2)))
    rung = rungs.open_loop(world, batch, infers=False)
    assert all(0.7 < value < 1.3 for value in rung.figures.values()), rung


def test_3_a_window_is_compared_with_one_of_other_actions(trained):
    """Held-out windows of few episodes are often the same one; where all are, there is nothing to compare."""
    world, _, batch = trained
    assert rungs._another(batch.action[:, :, [0, 0, 1, 0]]).tolist() == [2, 2, 3, 2]
    one = replace(
        batch, **{name: getattr(batch, name)[:, :, :1].expand(-1, -1, 8, -1) for name in ("observation", "action")}
    )
    assert rungs._another(one.action) is None
    rung = rungs.open_loop(world, replace(one, reward=batch.reward[:, :, :8]), infers=True)
    assert not any("another window" in name for name in (*rung.figures, *rung.bounds)) and rung.passed


def test_3_the_units_of_a_dimension_do_not_matter(trained):
    """One dimension is predicted two standard deviations beside its mean."""
    learned, _, batch = trained
    errors = []
    for units in (torch.ones(5), torch.tensor([1.0, 10, 100, 1000, 1e4])):
        world, raw = copy.deepcopy(learned), replace(batch, observation=units * batch.observation)
        identity = Normalizer.identity(world.normalizer.mean)
        world.config, world.normalizer = replace(world.config, normalize=False), identity
        last(world.decoder).weight.zero_()
        mean, std = raw.observation.mean((0, 1, 2)), raw.observation.std((0, 1, 2))
        last(world.decoder).bias.copy_(mean + 2 * std * (torch.arange(5) == 0))
        errors.append(rungs.open_loop(world, raw, infers=False).figures["true h=6"])
    assert errors[1] == pytest.approx(errors[0], rel=1e-3) and errors[0] > 1.2


def test_4_posteriors_that_fill_the_prior_pass(trained):
    world, _, batch = trained
    rung = rungs.latent_moments(world, batch, infers=True)
    assert rung.passed and len(rung.figures) == 6, rung
    assert list(rung.bounds.values()) == [(None, 0.5), (None, 2)] * 3
    feat = world.observe(batch, rungs.SilentNoise()).states.feat[:-1]
    inferred = world.infer_unlabeled(feat, world.embed(batch.observation)[1:])  # from the next observation
    mean = inferred.mean.mean((0, 1, 2))  # in units of N(0, I)
    assert rung.figures["q(u|s,o') to prior offset"] == pytest.approx(float(mean.square().mean().sqrt()), rel=1e-4)
    assert len(rungs.latent_moments(world, batch, infers=False).figures) == 2


@pytest.mark.parametrize(("broken", "says"), [("action_posterior", "never saw"), ("inverse_dynamics", "apart")])
def test_4_codes_beside_the_prior_fail(trained, broken, says):
    world, _, batch = trained
    last(getattr(world, broken)).bias[..., : world.config.latent_action] += 2
    rung = rungs.latent_moments(world, batch, infers=True)
    assert not rung.passed and says in rung.verdict
    shifted = {"action_posterior": "q(u|s,a)", "inverse_dynamics": "q(u|s,o')"}[broken]
    assert rung.figures[f"{shifted} to prior offset"] > 1.5


def test_4_moments_are_those_of_samples(trained):
    world, _, batch = trained
    seen = world.observe(batch, rungs.SilentNoise())
    drawn = seen.latent.mean + seen.latent.std * torch.randn(400, *seen.latent.mean.shape)
    mean, std = rungs._moments(seen.latent, world.latent_prior(seen.states.feat[:-1]))
    torch.testing.assert_close(mean, drawn.flatten(0, 3).mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(std, drawn.flatten(0, 3).std(0), atol=0.02, rtol=0)


def test_4_moments_are_in_units_of_the_prior():
    q, units = torch.randn(5, 1, 3, 2), torch.tensor([0.5, 4.0])
    own, prior = Gaussian(q, q.abs() + 0.1), Gaussian(torch.zeros_like(q), torch.ones_like(q))
    moved = [Gaussian(3 + units * one.mean, units * one.std) for one in (own, prior)]
    for one, other in zip(rungs._moments(own, prior), rungs._moments(*moved), strict=True):
        torch.testing.assert_close(one, other)


def prior_rung(world):
    data = np.mean([episode.episode_return for episode in models.episodes(20, 60)])
    return acting.prior_policy([episode.episode_return for episode in episodes_of(world.policy())], float(data))


def test_5_a_prior_that_acts_like_the_data_passes(trained):
    rung = prior_rung(trained[0])
    assert rung.passed and rung.bounds == {"ratio": (0.8, None)}, rung


def test_5_a_broken_decoder_fails(trained):
    last(trained[0].action_decoder).bias += torch.tensor(-3 * np.sign(MIX[:, 0]))  # always pushed to low rewards
    rung = prior_rung(trained[0])
    assert not rung.passed and "decoder" in rung.verdict


def exploitation(agent):
    return acting.exploitation(agent, episodes_of(agent.policy()), acting.replay_in(LinearEnv()))


def test_6_what_a_faithful_model_imagines_is_earned(trained):
    agent = trained[1]
    rung = exploitation(agent)
    assert rung.passed and 0.8 < rung.figures["imagined / replayed"] < 1.25, rung
    assert list(rung.bounds.values()) == [(None, 1.3)] * 2
    assert rung.figures["Monte-Carlo return"] > 10 * rung.figures["replayed reward"] / acting.HORIZON


def test_6_takes_an_agent_that_discounts_nothing(trained, monkeypatch):
    agent = trained[1]
    monkeypatch.setattr(agent, "config", replace(agent.config, discount=1.0))
    rung = exploitation(agent)
    episodes = episodes_of(agent.policy())
    earned = [
        e.reward[t:].sum() for e in episodes for t in range(0, (e.length - acting.HORIZON) // 2 + 1, acting.STRIDE)
    ]
    assert rung.figures["Monte-Carlo return"] == pytest.approx(np.mean(earned), rel=1e-5)


def test_6_a_model_that_promises_rewards_fails(trained):
    world, agent, _ = trained
    last(world.reward_head).bias += 1
    rung = exploitation(agent)
    assert not rung.passed and "exploits the model" in rung.verdict and "critics" not in rung.verdict


def test_6_critics_that_promise_returns_fail(trained):
    agent = trained[1]
    last(agent.targets).bias += 500
    rung = exploitation(agent)
    assert not rung.passed and rung.verdict.startswith("the critics promise more")


def test_6_critics_that_promise_less_than_nothing_do_not_fail(trained):
    agent = trained[1]
    last(agent.targets).bias -= 500
    rung = exploitation(agent)
    assert rung.passed and rung.figures["value / Monte-Carlo"] < 0, rung


def test_6_values_that_count_entropy_are_not_set_against_what_is_earned(trained, monkeypatch):
    agent = trained[1]
    monkeypatch.setattr(agent, "config", replace(agent.config, soft_returns=True))
    last(agent.targets).bias += 500
    rung = exploitation(agent)
    assert rung.passed and rung.figures["value / Monte-Carlo"] > acting.MOST


def test_6_cannot_tell_where_nothing_is_earned(trained):
    """Unless the model promises some of it."""
    world, agent, _ = trained
    last(world.reward_head).weight.zero_()
    last(agent.targets).weight.zero_()
    last(agent.targets).bias.zero_()
    for promised, passed in ((-1, None), (1.1 * acting.FLOOR, None), (1, False)):
        last(world.reward_head).bias.fill_(promised)
        rung = acting.exploitation(agent, episodes_of(agent.policy(), count=1), lambda *_: 0.0)
        assert rung.passed is passed, rung


def test_6_looks_at_each_start_where_it_is(trained):
    """By hand: actions from the state at t, as the agent took them there, and returns from r_t on."""
    agent, replayed = trained[1], []
    episodes = episodes_of(agent.policy(), count=2)

    def replay(episode, t, actions):
        replayed.append((episode.order, t))
        np.testing.assert_allclose(actions[0], episode.action[t], rtol=1e-4, atol=1e-5)
        return 0.0

    figures = acting.exploitation(agent, episodes, replay).figures
    starts = range(0, (60 - acting.HORIZON) // 2 + 1, acting.STRIDE)
    assert replayed == [(order, t) for order in (0, 1) for t in starts]
    gamma = agent.config.discount
    earned = [sum(gamma**i * r for i, r in enumerate(e.reward[t:].tolist())) for e in episodes for t in starts]
    assert figures["Monte-Carlo return"] == pytest.approx(np.mean(earned), rel=1e-4)


def test_3_the_first_imagined_state_is_compared_with_the_next_observation():
    """A world that counts: the observation is the time, and each imagined step adds one."""

    class Counting:
        config = SimpleNamespace(standardises=True)
        rssm = SimpleNamespace(
            imagine=lambda start, actions, noise: (
                SimpleNamespace(feat=start.mean + torch.arange(1.0, len(actions) + 1)[:, None, None, None]),
                actions,
            )
        )
        decoder = staticmethod(lambda feat: feat)

    time = torch.arange(40.0)[:, None, None, None]
    states = SimpleNamespace(map=lambda take: SimpleNamespace(mean=take(time)))
    seen = SimpleNamespace(states=states, action=torch.zeros(39, 1, 1, 1), observation=time)
    assert set(rungs._open_loop_errors(Counting(), seen).values()) == {0.0}


def test_what_is_held_out_are_windows_of_validation_episodes(dataset):
    (run,) = train.train(job(dataset), Path("runs"))
    starts = diagnostics.held_out(run, dataset).observation[0, 0].numpy()
    rows = {
        split: {row.tobytes() for episode in dataset.episodes("medium-replay", split) for row in episode.observation}
        for split in ("validation", "labeled", "unlabeled")
    }
    found = {row.tobytes() for row in starts}
    assert found <= rows["validation"] and not found & (rows["labeled"] | rows["unlabeled"])


def test_7_a_narrower_support_that_earns_more_fails():
    fine = acting.support({1.0: [100, 120], 0.5: [125, 115], 0.25: [60, 70]})
    assert fine.passed and fine.figures["narrower / return"] == pytest.approx(120 / 110)
    wide = acting.support({1.0: [100, 120], 0.5: [60, 70], 0.25: [140, 130]})
    assert not wide.passed and "lower agent.clap.eps" in wide.verdict
    assert wide.figures["at width 0.25"] == 135
    nothing = acting.support({1.0: [0, 0], 0.5: [0, 0], 0.25: [0, 0]})
    assert nothing.passed is None and "cannot tell" in nothing.verdict


def test_the_width_draws_codes_towards_the_priors_mean(trained):
    world, agent, _ = trained
    first, observation = torch.ones(1, 3, dtype=torch.bool), torch.randn(1, 3, 5)
    whole, none = (policy(observation, first) for policy in (agent.policy(), agent.policy(0.0)))
    acts_by_mean = world.filter(lambda feat: world.latent_prior(feat).mean)
    assert torch.equal(none, acts_by_mean(observation, first)) and not torch.equal(whole, none)


def test_the_prior_draws_other_codes_in_each_batch_of_episodes(trained):
    world = trained[0]
    first, observation = torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 3, 5)

    def batches(policy):
        return [torch.stack([policy(observation, first & (t == 0)) for t in range(4)]) for _ in range(2)]

    one, two = batches(world.policy())
    assert not torch.equal(one, two) and all(map(torch.equal, batches(world.policy()), (one, two)))


def test_states_are_those_that_the_agent_acted_on(trained):
    agent = trained[1]
    policy, states = agent.policy(), []

    def watched(observation, first):
        action = policy(observation, first)
        states.append(policy.state.feat[0, 0])
        return action

    (episode,) = episodes_of(watched, count=1)
    along = acting.filtered(agent, episode).feat[:, 0, 0]
    torch.testing.assert_close(along[:-1], torch.stack(states), atol=1e-5, rtol=1e-5)


def test_a_replay_of_the_recorded_actions_earns_the_recorded_rewards():
    env = envs.make("walker-walk", 50)
    rng = np.random.default_rng(0)
    act = lambda observation, first: rng.uniform(-1, 1, (len(observation), 6))  # noqa: E731
    calls = {"env": "walker-walk", "source": "evaluate", "seed": 0}
    (episode,) = rollout.episodes([env], act, [FIRST_SEED + 4], first_order=4, **calls)
    assert len(set(episode.reward.tolist())) == 20
    replay = acting.replay_in(env)
    beyond = np.concatenate([episode.action[18:], episode.action[:9]])
    assert replay(episode, 18, beyond) == pytest.approx(episode.reward[18:].sum()), "it ends where the episode does"
    for t in (0, 7, 18):
        assert replay(episode, t, episode.action[t : t + 5]) == pytest.approx(episode.reward[t : t + 5].sum(), rel=1e-5)


def test_r_squared_is_one_for_the_truth_and_zero_for_its_mean():
    truth = np.random.default_rng(0).normal(size=(50, 3))
    assert rungs.r_squared(truth, truth) == 1
    assert abs(rungs.r_squared(np.broadcast_to(truth.mean(0), truth.shape), truth)) < 1e-12


@pytest.fixture
def dataset():
    make_dataset(Path("data"), made_episodes(20))
    return stream.open_dataset("data")


def test_a_run_is_judged_by_its_own_draw_of_labels(dataset):
    (run,) = train.train(asked := job(dataset, "lawm", labels=Labels(fraction=0.4, seed=3)), Path("runs"))
    own, hidden = diagnostics.draw_of(run, dataset)
    ids = {episode.episode_id for episode in own}
    data = train.load_data(asked)
    assert ids == {episode.episode_id for episode in data.labeled[0]}
    assert {e.episode_id for e in hidden} == {e.episode_id for e in data.unlabeled[0]}
    assert all(episode.action is not None for episode in hidden)


def test_2_the_reference_learns_from_what_the_run_read_and_is_judged_on_the_rest(dataset, monkeypatch):
    (run,) = train.train(job(dataset, "lawm"), Path("runs"))
    given = []
    monkeypatch.setattr(rungs, "inferred_actions", lambda world, *parts: given.extend(parts[:2]))
    with torch.no_grad():
        diagnostics._of_model(run, dataset, policy.load(run, run.newest).modules["world"])
    names = [[episode.episode_id for episode in part] for part in (*given, *diagnostics.draw_of(run, dataset))]
    assert names[:2] == names[2:] and all(episode.action is not None for episode in given[1])


def test_of_an_oracle_nothing_is_judged_of_inference(dataset):
    (run,) = train.train(job(dataset, "lawm", labels=Labels(oracle=True)), Path("runs"))
    with torch.no_grad():
        _, second, *others = diagnostics._of_model(run, dataset, policy.load(run, run.newest).modules["world"])
    assert second.passed is None
    assert not any("inferred" in figure or "o'" in figure for rung in others for figure in rung.figures)


def walked_of_model(episodes):
    """The rungs of the model, by number, of a run on these episodes, all labels kept."""
    store(Path("lawm"), episodes, repeat=None)
    split(Path("lawm"))
    data = stream.open_dataset("lawm/dataset/custom-made")
    (run,) = train.train(job(data, "lawm"), Path("runs"))
    with torch.no_grad():
        return dict(enumerate(diagnostics._of_model(run, data, policy.load(run, run.newest).modules["world"]), 1))


def test_without_unlabeled_episodes_nothing_is_judged_of_inference():
    walked = walked_of_model(made(30))
    assert walked[2].passed is None and "every action known" in walked[2].verdict
    assert walked[3].figures.keys() >= {"true h=1", "true h=5", "true h=15"}, "its dynamics are judged all the same"
    assert not any("inferred" in name for name in walked[3].figures)
    assert not any("o'" in figure for figure in walked[4].figures), "q(u|s,o') never got a gradient"


def test_episodes_that_never_had_actions_are_inferred_and_not_compared():
    walked = walked_of_model([episode if episode.order < 15 else episode.stripped() for episode in made(30)])
    assert walked[2].passed is None and "no actions were withheld" in walked[2].verdict
    assert walked[3].figures and any("o'" in figure for figure in walked[4].figures)


def test_told_actions_that_were_not_published_leave_the_other_rungs(dataset):
    (run,) = train.train(job(dataset, "idm-clap"), Path("runs"))
    for path in Path("data").rglob("withheld-*"):
        path.unlink()
    walked = diagnostics.ladder(run.path, dataset)
    assert walked[1].passed is None and "withheld-" in walked[1].verdict and walked[0].figures and walked[2].figures


def test_told_actions_that_are_damaged_are_an_error(dataset):
    """Not the same as not published."""
    (run,) = train.train(job(dataset, "idm-clap"), Path("runs"))
    for path in Path("data").rglob("withheld-*"):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="withheld-.*sha256 differs"):
        diagnostics.ladder(run.path, dataset)


def test_actions_that_never_change_have_figures(trained):
    """JSON takes no infinity."""
    world, _, batch = trained
    still = replace(batch, action=torch.zeros_like(batch.action))
    assert math.isfinite(rungs.labeled_path(world, still).figures["held-out action error / variance"])
    assert rungs.r_squared(np.ones((3, 2)), np.zeros((3, 2))) < -1000


@pytest.mark.parametrize(
    ("method", "phases", "position", "logged"),
    [
        ("lawm", ["joint"], (0, 3), True),
        ("lawm", ["joint"], (0, 5), False),  # trained on since
        ("idm-clap", ["idm", "joint"], (1, 3), True),
        ("idm-clap", ["idm", "joint"], (1, 5), False),
        ("clap", ["model", "agent"], (1, 5), True),  # the model was frozen before
        ("idm-clap", ["idm", "model", "agent"], (2, 5), True),
    ],
)
def test_5_takes_a_score_of_the_prior_only_where_it_is_of_this_model(method, phases, position, logged):
    run = Run(make_run(Path("run"), method, 0, []))
    for phase in phases:
        run.log({"kind": "train", "phase": phase, "update": 3})
    run.log({"kind": "evaluate", "phase": phases[-1], "update": 3, "returns": [5.0]})
    score = results.Score(phase=len(phases) - 1, update=3, mean=7.0, std=0.0, returns=[7.0])
    files.write_json(results.Score.file(run.path, "prior"), asdict(score))
    assert diagnostics._logged_of_prior(run, Position(*position)) == ([(7.0,)] if logged else [])


def test_5_to_7_ask_each_policy_in_the_simulator_of_the_data(monkeypatch):
    world, agent = SimpleNamespace(policy=lambda: "prior"), SimpleNamespace(policy=lambda width=1.0: width)
    asked = []

    class Simulator:
        def __init__(self, *how):
            self.how = how

        def run(self, policy):
            asked.append((policy, *self.how))
            return [[policy]]

        def returns(self, policy):
            return [[float(len(asked))] for _ in self.run(policy)]

    def explored(agent, episodes, replay):
        asked.append((*episodes, replay))
        return rungs.not_walked("6 exploitation", "")

    monkeypatch.setattr(diagnostics, "Evaluator", Simulator)
    monkeypatch.setattr(diagnostics, "_logged_of_prior", lambda *_: [])
    monkeypatch.setattr(acting, "exploitation", explored)
    monkeypatch.setattr(acting, "replay_in", lambda env: env)
    monkeypatch.setattr(envs, "make", lambda *how: how)
    slices = {"medium": SimpleNamespace(statistics={"mean": 7.0, "median": 8.0})}
    manifest = SimpleNamespace(env="pendulum-swingup", repeat=50, observation_size=3, action_size=1, slices=slices)
    data, run = SimpleNamespace(manifest=manifest, describe=lambda: "made"), SimpleNamespace(config={"slice": "medium"})
    fifth, _, seventh = diagnostics._of_agent(run, data, world, agent, Position(1, 1))
    own = manifest.env, manifest.repeat
    widths = [(width, *own, 1, diagnostics.WIDTH_EPISODES) for width in acting.WIDTHS]
    replayed = [(1.0, *own, 1, acting.EPISODES), (1.0, own)]
    assert asked == [("prior", *own, 1, diagnostics.PRIOR_EPISODES), *replayed, *widths]
    assert (fifth.figures["return"], fifth.figures["data mean"]) == (1.0, 7.0)
    assert list(seventh.figures.values())[:3] == [4.0, 5.0, 6.0]


def test_a_dataset_without_validation_episodes_is_one_line(dataset):
    (run,) = train.train(job(dataset), Path("runs"))
    none = {
        name: replace(entry, splits={**entry.splits, "validation": []})
        for name, entry in dataset.manifest.slices.items()
    }
    bare = stream.Dataset(hub.Folder(Path("data"), replace(dataset.manifest, slices=none)))
    with pytest.raises(UserError, match="slice medium-replay has no validation episodes.*split.validation above 0"):
        diagnostics.held_out(run, bare)


def test_validation_episodes_too_short_for_the_ladder_are_left_out(tmp_path):
    need = rungs.CONTEXT + rungs.HORIZONS[-1]
    short = [random_episode(100 + order, need - 1) for order in range(4)]
    for shortest, says in ((3, None), (4, f"no validation episode has the {need} steps that the ladder looks at")):
        make_dataset(tmp_path / str(shortest), [*made_episodes(16 - shortest), *short[:shortest]])
        dataset = stream.open_dataset(str(tmp_path / str(shortest)))
        (run,) = train.train(job(dataset, "clap"), tmp_path / f"runs{shortest}")
        if says:
            with pytest.raises(UserError, match=says):
                diagnostics.held_out(run, dataset)
        else:
            assert diagnostics.held_out(run, dataset).observation.shape[:3] == (need + 1, 1, diagnostics.WINDOWS)


@pytest.mark.parametrize(("method", "skipped"), [("lawm", 3), ("clap", 4), ("idm-clap", 4)])
def test_diagnose_prints_all_rungs_with_their_verdicts(dataset, method, skipped):
    """A model of few updates: it fails; a dataset without a simulator leaves three rungs out, C-LAP one more."""
    train.train(job(dataset, method), Path("runs"))
    run = f"runs/custom-made-medium-replay-{method}-s0"
    arguments = ["diagnose", run, "--hub-dataset", "data", "--out", "ladder.png"]
    answer = CliRunner().invoke(lawm_train.cli.main, arguments)
    assert answer.exit_code == 0, answer.output
    lines = answer.stdout.splitlines()
    assert lines[0] == run and [line.split()[1] for line in lines[1:]] == list("1234567")
    assert (
        sum(line.startswith("    -   ") for line in lines[1:]) == skipped and "FAILED  1 labeled path" in answer.stdout
    )
    assert Path("ladder.png").read_bytes()[:4] == b"\x89PNG"
    assert ("R2 supervised IDM" in answer.stdout) == (method != "clap")
    assert ("true h=15" in answer.stdout) and ("inferred h=15" in answer.stdout) == (method == "lawm")
    kept = files.read_json(Path(run) / "diagnostics.json")
    assert [rung["passed"] for rung in kept["rungs"]].count(None) == skipped
    assert kept["update"] == Run(Path(run)).positions()[-1].update
