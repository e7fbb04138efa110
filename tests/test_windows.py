"""Time is cut and aligned in windows alone; a counting episode shows any shift."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import counting_episode, random_episode

from lawm_data.errors import UserError
from lawm_data.windows import Pool, Windows, contexts, moments


def pools(window=5, lengths=(20, 30, 9)):
    labeled = [counting_episode(order, length) for order, length in enumerate(lengths)]
    hidden = [counting_episode(order + 10, length).stripped() for order, length in enumerate(lengths)]
    return Pool(labeled, True, 1, window), Pool(hidden, False, 1, window)


def test_windows_are_aligned():
    labeled, hidden = pools()
    windows = Windows([[labeled, hidden]] * 2, [0, 1], 5, [6, 10])
    for index in range(20):
        batch = windows.batch(index)
        assert batch.observation.shape == (6, 2, 16, 2) and batch.action.shape == (5, 2, 16, 1)
        count = batch.observation[..., 0]
        assert torch.equal(count[1:], count[:-1] + 1)
        order, t = torch.floor(count[:-1] / 1000), count[:-1] % 1000
        torch.testing.assert_close(batch.reward, order + t / 1000)
        lengths = torch.tensor([20.0, 30.0, 9.0])[order[:, :, :6].long()]
        torch.testing.assert_close(batch.action[:, :, :6, 0], t[:, :, :6] / lengths)
        assert (batch.action[:, :, 6:] == 0).all() and (order[:, :, 6:] >= 10).all()
        assert batch.num_labeled == 6 and torch.equal(batch.labeled[0], torch.arange(16) < 6)


def test_batches_are_a_pure_function_of_seed_and_index():
    labeled, hidden = pools()
    both = Windows([[labeled, hidden]] * 2, [3, 4], 5, [2, 2])
    lone = Windows([[labeled, hidden]], [4], 5, [2, 2])
    assert torch.equal(both.batch(7).observation[:, 1:], lone.batch(7).observation)
    assert not torch.equal(both.batch(7).observation[:, 0], both.batch(7).observation[:, 1])
    assert not torch.equal(lone.batch(7).observation, lone.batch(8).observation)
    assert not torch.equal(lone.batch(7).observation, lone.batch(7, "agent").observation)


def test_each_model_draws_from_pools_of_its_own():
    a, b = (Pool([counting_episode(order, 20)], True, 1, 5) for order in (1, 2))
    both = Windows([[a], [b]], [3, 4], 5, [6]).batch(7)
    for k, pool in enumerate((a, b)):
        lone = Windows([[pool]], [3 + k], 5, [6]).batch(7)
        assert torch.equal(both.observation[:, k], lone.observation[:, 0])
        assert (both.observation[..., 0][:, k] // 1000 == k + 1).all()


def test_the_first_steps_are_as_frequent_as_the_rule_says():
    """k uniform on [-(L-1), T-1], clipped: of T + L - 1 windows L start at 0 and L at T - L, one at each between."""
    length, window, draws = 12, 4, 60_000
    pool = Pool([counting_episode(0, length)], True, 1, window)
    first, _ = pool.draw(np.random.default_rng(0), draws, window)
    share = np.bincount(first, minlength=length - window + 1) / draws
    wanted = np.full(length - window + 1, 1 / (length + window - 1))
    wanted[[0, -1]] = window / (length + window - 1)
    np.testing.assert_allclose(share, wanted, atol=0.006)


def test_without_even_ends_each_first_step_is_as_frequent():
    length, window, draws = 12, 4, 60_000
    pool = Pool([counting_episode(0, 5), counting_episode(1, length)], True, 1, window)
    first, _ = pool.draw(np.random.default_rng(0), draws, window, even=False)
    share = np.bincount(first, minlength=len(pool.rows)) / draws
    wanted = np.zeros(len(pool.rows))
    wanted[:2] = wanted[6 : 6 + length - window + 1] = 1 / (2 + length - window + 1)  # 2 places in 5 steps, 9 in 12
    np.testing.assert_allclose(share, wanted, atol=0.006)


def test_terminal_is_true_only_where_a_window_ends_in_a_true_end():
    ends = replace(counting_episode(0, 10), terminal=True)
    pool = Pool([ends, counting_episode(1, 10)], True, 1, 4)
    batch = Windows([[pool]], [0], 4, [200]).batch(0)
    last = batch.observation[-1, 0, :, 0]
    assert torch.equal(batch.terminal[0], last == 10) and batch.terminal.any()


def test_an_end_stays_with_the_window_of_its_model_and_pool():
    """Of two models the first has an end among its labeled episodes, the second among its unlabeled."""
    ended = {(0, 0), (1, 1)}
    pools = [
        [Pool([replace(counting_episode(0, 10), terminal=(n, kind) in ended)], kind == 0, 1, 4) for kind in (0, 1)]
        for n in (0, 1)
    ]
    batch = Windows(pools, [0, 1], 4, [20, 30]).batch(0)
    here = torch.tensor([[(n, int(b >= 20)) in ended for b in range(50)] for n in (0, 1)])
    assert torch.equal(batch.terminal, here & (batch.observation[-1, :, :, 0] == 10))
    assert batch.terminal[0, :20].any() and batch.terminal[1, 20:].any()


def test_hidden_actions_never_enter_the_pool():
    episode = random_episode(0)
    poisoned = Pool([episode], False, 2)
    assert torch.equal(poisoned.rows, Pool([episode.stripped()], False, 2).rows)
    assert (poisoned.rows[:, 5:7] == 0).all()


def test_moments_are_those_of_exactly_the_rows():
    a, b = [random_episode(i) for i in range(2)], [random_episode(i).stripped() for i in range(2, 5)]
    mean, std = moments([Pool(a, True, 2), Pool(b, False, 2)])
    rows = np.concatenate([e.observation for e in a + b])
    np.testing.assert_allclose(mean[0], rows.mean(0, dtype=np.float64), rtol=1e-5)
    np.testing.assert_allclose(std[0], rows.std(0, dtype=np.float64), rtol=1e-5)


def test_contexts_hold_both_ends_of_each_action():
    around = contexts(counting_episode(0, 6).observation[:, :1], radius=2)
    assert around.shape == (6, 5)
    assert around[0].tolist() == [0, 0, 0, 1, 2] and around[5].tolist() == [3, 4, 5, 6, 6]


@pytest.mark.parametrize(
    "episodes, labeled, message",
    [
        ([], True, "no labeled episodes"),
        ([counting_episode(0, 4)], True, "shorter than a window of 5"),
        ([counting_episode(0, 9).stripped()], True, "has no actions"),
        *(
            ([replace(counting_episode(0, 9), **{name: np.full(shape, np.nan, np.float32)})], True, "not finite")
            for name, shape in (("observation", (10, 1)), ("action", (9, 1)), ("reward", 9))
        ),
    ],
)
def test_bad_pools_are_refused(episodes, labeled, message):
    with pytest.raises(UserError, match=message):
        Pool(episodes, labeled, 1, 5)
