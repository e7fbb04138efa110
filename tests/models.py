"""Tiny world models and batches for the tests of the losses."""

from dataclasses import replace

from helpers import random_episode

from lawm_data.nets.blocks import Noise, Normalizer
from lawm_data.windows import Pool, Windows, moments
from lawm_train import lawm

SMALL = lawm.Config(
    deter=7,
    stoch=4,
    embed=6,
    hidden=5,
    units=6,
    layers=1,
    idm_layers=1,
    latent_action=3,
    prior="standard",
    free_nats=0.0,
)


class DoubleNoise(Noise):
    def normal(self, time, batch, size):
        return super().normal(time, batch, size).double()


def episodes(count=6, length=30, **kwargs):
    return [random_episode(order, length, **kwargs) for order in range(count)]


def windows(seeds=(0,), counts=(3, 4), window=6, recorded=None):
    """Windows of made episodes; the second half of the episodes is unlabeled."""
    recorded = recorded or episodes()
    labeled = Pool(recorded[:3], True, 2, window)
    if counts[1] == 0:
        return Windows([[labeled]] * len(seeds), seeds, window, counts[:1])
    hidden = Pool([e.stripped() for e in recorded[3:]], False, 2, window)
    return Windows([[labeled, hidden]] * len(seeds), seeds, window, counts)


def normalizer(made):
    mean, std = moments(made.pools[0])
    models = len(made.seeds)
    return Normalizer(mean.repeat(models, 1, 1), std.repeat(models, 1, 1))


def world(made, terminal=False, **changes):
    return lawm.WorldModel(replace(SMALL, **changes), list(made.seeds), normalizer(made), 2, terminal)


def as_double(batch):
    values = {name: getattr(batch, name).double() for name in ("observation", "action", "reward")}
    return replace(batch, **values)


def gradients(module):
    return {name: None if p.grad is None else p.grad.clone() for name, p in module.named_parameters()}
