"""The rungs of the ladder that act in the simulator.

5. prior policy: does acting by the prior, without reinforcement learning, come near the data? Else decoder or filter is
   broken.
6. exploitation: does the agent earn in the simulator what it earns in imagination, and what its critics promise?
7. support: does the agent earn more when its codes are drawn towards the prior's mean? Then eps lets it choose codes
   that the data hardly know; a model that is right near the data (6) does not show it.

Shapes: T steps, K imagined steps, N = 1 model, P starts, A action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from lawm_data.envs import Env
from lawm_data.episode import Episode
from lawm_data.nets.rssm import State
from lawm_data.windows import Batch
from lawm_train.clap import Agent
from lawm_train.evaluate import FIRST_SEED
from lawm_train.rungs import Bounds, Rung, SilentNoise, judged

EPISODES = 5
STRIDE = 25  # steps between two starts of imagination
HORIZON = 5
FLOOR = 0.01  # of a reward, so that a policy that earns nothing has a ratio
MOST = 1.3  # imagined / real
WIDTHS = (1.0, 0.5, 0.25)  # of the support that the agent was trained with
NARROWER = 1.2  # the best return of a narrower support / the return
Replay = Callable[[Episode, int, np.ndarray], float]
"""(episode, t, actions [K, A]) -> the reward that the actions earn in the simulator from the episode's state t."""


def prior_policy(returns: Sequence[float], data_mean: float) -> Rung:
    """Rung 5: raw returns of the prior-policy control beside the mean return of the slice."""
    figures = {"return": fmean(returns), "data mean": data_mean, "ratio": fmean(returns) / max(data_mean, FLOOR)}
    bounds: Bounds = {"ratio": (0.8, None)}
    bad = {
        "ratio": "codes from the prior do not act like the data: the decoder or the filter is broken, or one behaviour "
        "spans many steps and a code drawn anew at each does not hold it"
    }
    return judged("5 prior policy", figures, bounds, "the prior acts like the data", bad)


def exploitation(agent: Agent, episodes: Sequence[Episode], replay: Replay) -> Rung:
    """Rung 6, on episodes of the agent: imagined reward of 5 steps against the same actions replayed, and values
    against discounted Monte-Carlo returns.

    Starts lie in the first half: what the time limit cuts off is then discounted by at least T / 2 steps. Values are of
    the trained actor, which samples; the episodes are of what acts: its mean, averaged where `acting_rate` says so.
    """
    imagined, replayed, values, earned = [], [], [], []
    for episode in episodes:
        starts = range(0, (episode.length - HORIZON) // 2 + 1, STRIDE)
        states = filtered(agent, episode).map(lambda x: x[starts, :, 0].transpose(0, 1))  # noqa: B023
        rewards, actions = imagine(agent, states)
        imagined += rewards.sum(0).tolist()
        values += agent.value(states.feat[None])[0, 0].tolist()
        replayed += [replay(episode, t, actions[:, place].numpy()) for place, t in enumerate(starts)]
        earned += [_discounted(episode.reward[t:], agent.config.discount) for t in starts]
    longest = max(episode.length for episode in episodes)  # the discount may be 1
    reward_floor, return_floor = HORIZON * FLOOR, FLOOR / max(1 - agent.config.discount, 1 / longest)
    figures = {"imagined reward": fmean(imagined), "replayed reward": fmean(replayed)}
    figures |= {"value": fmean(values), "Monte-Carlo return": fmean(earned)}
    figures |= {
        "imagined / replayed": figures["imagined reward"] / max(figures["replayed reward"], reward_floor),
        "value / Monte-Carlo": figures["value"] / max(figures["Monte-Carlo return"], return_floor),
    }
    bounds: Bounds = {"imagined / replayed": (None, MOST)}
    if not agent.config.soft_returns:  # else values count entropy, which earns nothing
        bounds["value / Monte-Carlo"] = (None, MOST)
    bad = {
        "imagined / replayed": (
            "the agent exploits the model: raise model.observation_sigma, lower agent.clap.eps, or train it longer"
        ),
        "value / Monte-Carlo": "the critics promise more than is earned: lower agent.clap.eps",
    }
    rung = judged("6 exploitation", figures, bounds, "what is imagined is earned", bad)
    if rung.passed and figures["replayed reward"] < reward_floor:
        return rung._replace(passed=None, verdict="next to nothing is earned, so it cannot tell")
    return rung


def support(returns: Mapping[float, Sequence[float]]) -> Rung:
    """Rung 7: raw returns of the agent's episodes by width of its support, 1 the one that it was trained with."""
    means = {width: fmean(own) for width, own in returns.items()}
    whole = means.pop(1.0)
    figures = {"return": whole, **{f"at width {width:g}": mean for width, mean in means.items()}}
    if max(figures.values()) < FLOOR:
        return Rung("7 support", figures, {}, None, "nothing is earned at any width, so it cannot tell")
    figures["narrower / return"] = max(means.values()) / max(whole, FLOOR)
    bad = {"narrower / return": "the agent earns more nearer the prior's mean: lower agent.clap.eps"}
    bounds: Bounds = {"narrower / return": (None, NARROWER)}
    return judged("7 support", figures, bounds, "the support is not too wide", bad)


def filtered(agent: Agent, episode: Episode) -> State:
    """States 0..T along an episode, each its posterior's mean, as the agent's filter has them, [T+1, 1, 1, ...]."""
    assert episode.action is not None
    observation, action, reward = (
        torch.tensor(x)[:, None, None] for x in (episode.observation, episode.action, episode.reward)
    )
    ended, known = torch.tensor([[episode.terminal]]), torch.tensor([[True]])
    batch = Batch(observation, action, reward, terminal=ended, labeled=known, num_labeled=1)
    return agent.world.observe(batch, SilentNoise()).states


def imagine(agent: Agent, start: State) -> tuple[Tensor, Tensor]:
    """Predicted rewards [K, P] and the policy's actions [K, P, A], with means throughout, from start [1, P, ...]."""
    act, quiet = agent.policy().act, torch.zeros(HORIZON, *start.mean.shape)
    states, actions = agent.world.rssm.imagine(start, lambda state, _: act(state.feat), quiet)
    return agent.world.reward_head(states.feat)[:, 0, :, 0], actions[:, 0]


def replay_in(env: Env) -> Replay:
    """Replays episodes of the evaluator: an episode depends on its seed and its actions alone."""

    def replay(episode: Episode, t: int, actions: np.ndarray) -> float:
        assert episode.action is not None
        env.reset(FIRST_SEED + episode.order)
        for action in episode.action[:t]:
            env.step(action)
        total = 0.0
        for action in actions:
            step = env.step(action)
            total += step.reward
            if step.done:
                break
        return total

    return replay


def _discounted(reward: np.ndarray, discount: float) -> float:
    return float(np.sum(reward * discount ** np.arange(len(reward))))
