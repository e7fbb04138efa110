"""Losses of the first updates of each algorithm, against files: they change only in a commit that says why.

`pytest tests/test_golden.py --update-golden` writes them anew.
"""

import json
from pathlib import Path

import models
import numpy as np
import pytest

from lawm_data import dreamer, plan2explore
from lawm_data.nets.blocks import Noise
from lawm_data.windows import moments
from lawm_train import bc, clap, idm, td3bc

FOLDER = Path(__file__).parent / "golden"
UPDATES = 10


def world_model(prior, counts):
    made = models.windows(counts=counts)
    world = models.world(made, prior=prior, free_nats=1.0)
    return [world.update(made.batch(i, "model"), Noise([0], "model", i))[0] for i in range(UPDATES)]


def lawm_losses():
    return world_model("standard", (3, 4))


def clap_model_losses():
    return world_model("learned", (7, 0))


def clap_model_standard_losses():
    return world_model("standard", (7, 0))


def agent(prior, counts):
    made = models.windows(counts=counts)
    world = models.world(made, prior=prior)
    agent = clap.Agent(clap.Config(units=8, layers=1, horizon=3), world, [0])
    metrics = []
    for i in range(UPDATES):
        states = world.observe(made.batch(i, "agent"), Noise([0], "observe", i)).states
        metrics.append(agent.update(states, Noise([0], "agent", i)))
    return metrics


def lawm_agent_losses():
    return agent("standard", (3, 4))


def clap_agent_losses():
    return agent("learned", (7, 0))


def bc_losses():
    made = models.windows(counts=(8, 0), window=1)
    cloner = bc.Cloner(bc.Config(units=8), [0], models.normalizer(made), 2)
    return [cloner.update(made.batch(i), Noise([0], "bc", i)) for i in range(UPDATES)]


def idm_losses():
    recorded, made = models.episodes(2), models.windows()
    config = idm.Config(updates=UPDATES, units=8, batch=16, choose_every=1)
    model = idm.InverseDynamics(config, [0], models.normalizer(made), 2)
    step = idm.steps(model, [0], [recorded])
    return [step(i) for i in range(UPDATES)]


def td3bc_losses():
    made = models.windows(counts=(16, 0), window=1)
    mean, std = moments(made.pools[0])
    agent = td3bc.Agent(td3bc.Config(units=8, actor_every=1), [0], td3bc.normalizer(mean[None], std[None]), 2)
    return [agent.update(made.batch(i), Noise([0], "td3bc", i)) for i in range(UPDATES)]


def dreamer_losses(curious=False):
    config = dreamer.Config(
        window=6, deter=7, stoch=4, embed=6, hidden=5, units=6, layers=1, horizon=3, stride=2, bins=11
    )
    reward = None
    if curious:
        reward = plan2explore.Disagreement(plan2explore.Config(members=3, units=6, layers=1), [0], 11, 2, 5)
    agent, made = dreamer.Dreamer(config, [0], 5, 2, reward), models.windows(counts=(7, 0))
    return [agent.update(made.batch(i, "replay"), Noise([0], "learn", i)) for i in range(UPDATES)]


def plan2explore_losses():
    return dreamer_losses(curious=True)


ALGORITHMS = {
    "dreamer": dreamer_losses,
    "plan2explore": plan2explore_losses,
    "lawm": lawm_losses,
    "lawm_agent": lawm_agent_losses,
    "clap_model": clap_model_losses,
    "clap_model_standard": clap_model_standard_losses,
    "clap_agent": clap_agent_losses,
    "bc": bc_losses,
    "idm": idm_losses,
    "td3bc": td3bc_losses,
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_golden(name, request):
    found = [{key: float(value[0]) for key, value in metrics.items()} for metrics in ALGORITHMS[name]()]
    path = FOLDER / f"{name}.json"
    if request.config.getoption("--update-golden"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
    wanted = json.loads(path.read_text())
    assert len(found) == len(wanted) == UPDATES
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.keys() == theirs.keys()
        np.testing.assert_allclose([ours[key] for key in theirs], list(theirs.values()), rtol=1e-4, atol=1e-6)
