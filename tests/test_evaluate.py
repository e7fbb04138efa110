"""Scores: each model's own policy, the same episodes for all of them, a new state at the start of each."""

import numpy as np
import pytest
import torch

from lawm_data.envs import Step
from lawm_train import evaluate
from lawm_train.evaluate import FIRST_SEED, Evaluator

LENGTH = 4


class CountingEnv:
    """The observation tells seed and time; the reward is a thousand times the action, plus the episode's number."""

    def reset(self, seed):
        self.order, self.time = seed - FIRST_SEED, 0
        return self._observation()

    def step(self, action):
        self.time += 1
        return Step(self._observation(), 1000 * float(action[0]) + self.order, self.time == LENGTH, False)

    def _observation(self):
        return np.array([self.order, self.time], np.float32)


@pytest.mark.parametrize("episodes", [3, 25, 45])
def test_every_model_acts_in_the_same_episodes_by_itself(monkeypatch, episodes):
    monkeypatch.setattr(evaluate.envs, "make", lambda *_: CountingEnv())
    seen = []

    def policy(observation, first):
        assert torch.equal(first, observation[..., 1] == 0), "a state is forgotten at each start, and only there"
        seen.extend(observation[0, :, 0][first[0]].tolist())
        assert observation.shape[0] == 2
        return torch.tensor([0.1, 0.2])[:, None, None].expand(2, observation.shape[1], 1)

    returns = Evaluator("custom:count", 1, 2, episodes).returns(policy)
    for model, own in enumerate(returns):
        assert own == pytest.approx([LENGTH * (100 * (model + 1) + order) for order in range(episodes)])
    assert seen == list(range(episodes))
