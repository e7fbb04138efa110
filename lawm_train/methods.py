"""The methods by name: what each one builds, in which phases it trains, and how it acts.

A phase is a number of updates of some modules. `train.fit` knows phases only: a new method is a file and a class here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lawm_data.config import check_least, check_most
from lawm_data.errors import UserError
from lawm_data.nets.blocks import Noise, Normalizer
from lawm_data.nets.optim import usable_device
from lawm_train import bc, clap, idm, lawm, td3bc
from lawm_train.data import Batches, Data, Labels, Sizes, Statistics, Windowed

Policy = Callable[[Tensor, Tensor], Tensor]
"""observation [N, B, O], first [N, B] -> action [N, B, A]"""

INFERRED = "idm-"  # before a method's name: the method on actions that an IDM inferred


@dataclass(frozen=True)
class AgentConfig:
    """The recipe's `agent` section: one part a method."""

    clap: clap.Config = field(default_factory=clap.Config)
    bc: bc.Config = field(default_factory=bc.Config)
    td3bc: td3bc.Config = field(default_factory=td3bc.Config)
    idm: idm.Config = field(default_factory=idm.Config)


@dataclass(frozen=True)
class TrainConfig:
    """The recipe's `train` section."""

    updates: int = 10_000  # of the world model
    batch: int = 16  # windows
    window: int = 50  # transitions
    labeled_share: float = 0.5  # of a batch; 0.05 is the paper read literally
    joint: bool = False  # world model and agent in one phase
    log_every: int = 100
    checkpoint_every: int = 500
    device: str = "cpu"
    pool_gb: float = 4.0  # of trajectories in memory; what does not fit is read in turns

    def __post_init__(self) -> None:
        # two windows: one labeled, one not
        check_least("train", self, updates=1, batch=2, window=1, labeled_share=0, log_every=1)
        check_least("train", self, checkpoint_every=1, pool_gb=0)
        check_most("train", self, labeled_share=1)


@dataclass(frozen=True)
class Phase:
    """`step(i)` does update i and returns metrics [N]; a `policy` is evaluated at the end, and before if `watched`."""

    name: str
    updates: int
    step: Callable[[int], dict[str, Tensor]]
    policy: Callable[[], Policy] | None
    watched: bool = True


class Method(Protocol):
    """N models (seeds) of one method. `modules` holds every parameter, buffer and optimiser."""

    modules: dict[str, nn.Module]

    def phases(self, data: Windowed) -> list[Phase]: ...

    def policy(self) -> Policy: ...


class ModelBased:
    """LAWM and C-LAP: a world model, then an agent in its imagination."""

    def __init__(self, name: str, configs: dict[str, Any], seeds: list[int], sizes: Sizes, statistics: Statistics):
        self.configs, self.seeds = configs, seeds
        model = configs["model"]
        free_nats = sizes.free_nats if model.free_nats is None else model.free_nats
        prior = model.prior or ("standard" if name == "lawm" else "learned")
        model = replace(model, prior=prior, free_nats=free_nats)
        self.world = lawm.WorldModel(model, seeds, Normalizer(*statistics.all), sizes.action, sizes.terminal)
        self.agent = clap.Agent(configs["agent"].clap, self.world, seeds)
        self.modules: dict[str, nn.Module] = {"world": self.world, "agent": self.agent}

    def phases(self, data: Windowed) -> list[Phase]:
        train: TrainConfig = self.configs["train"]
        windows = self._windows(data)

        def model_step(i: int) -> dict[str, Tensor]:
            return self.world.update(windows.batch(i, "model"), self._noise("model", i))[0]

        def agent_step(i: int) -> dict[str, Tensor]:
            with torch.no_grad():
                states = self.world.observe(windows.batch(i, "agent"), self._noise("observe", i)).states
            return self.agent.update(states, self._noise("agent", i))

        def joint_step(i: int) -> dict[str, Tensor]:
            metrics, states = self.world.update(windows.batch(i, "model"), self._noise("model", i))
            return metrics | self.agent.update(states, self._noise("agent", i))

        if train.joint:
            return [Phase("joint", train.updates, joint_step, self.policy)]
        return [
            Phase("model", train.updates, model_step, self.world.policy, watched=False),
            Phase("agent", self.configs["agent"].clap.updates, agent_step, self.policy),
        ]

    def policy(self) -> Policy:
        return self.agent.policy()

    def _windows(self, data: Windowed) -> Batches:
        train: TrainConfig = self.configs["train"]
        labeled = train.batch
        if data.kinds == 2:
            labeled = min(max(round(train.labeled_share * train.batch), 1), train.batch - 1)
        counts = [labeled, train.batch - labeled][: data.kinds]
        return data.windows(self.seeds, counts, train.device)

    def _noise(self, stream: str, step: int) -> Noise:
        return Noise(self.seeds, stream, step, self.configs["train"].device)


class Cloning:
    """Behaviour cloning."""

    def __init__(self, name: str, configs: dict[str, Any], seeds: list[int], sizes: Sizes, statistics: Statistics):
        self.configs, self.seeds = configs, seeds
        self.cloner = bc.Cloner(configs["agent"].bc, seeds, Normalizer(*statistics.all), sizes.action)
        self.modules: dict[str, nn.Module] = {"cloner": self.cloner}

    def phases(self, data: Windowed) -> list[Phase]:
        config: bc.Config = self.configs["agent"].bc
        windows = data.windows(self.seeds, [config.batch], self.configs["train"].device)
        return [Phase("bc", config.updates, lambda i: self.cloner.update(windows.batch(i, "bc")), self.policy)]

    def policy(self) -> Policy:
        return self.cloner.policy()


class ActorCritic:
    """TD3+BC."""

    def __init__(self, name: str, configs: dict[str, Any], seeds: list[int], sizes: Sizes, statistics: Statistics):
        self.configs, self.seeds = configs, seeds
        normalizer = td3bc.normalizer(*statistics.all)
        self.agent = td3bc.Agent(configs["agent"].td3bc, seeds, normalizer, sizes.action)
        self.modules: dict[str, nn.Module] = {"agent": self.agent}

    def phases(self, data: Windowed) -> list[Phase]:
        config, device = self.configs["agent"].td3bc, self.configs["train"].device
        windows = data.windows(self.seeds, [config.batch], device)

        def step(i: int) -> dict[str, Tensor]:
            return self.agent.update(windows.batch(i, "td3bc"), Noise(self.seeds, "td3bc", i, device))

        return [Phase("td3bc", config.updates, step, self.policy)]

    def policy(self) -> Policy:
        return self.agent.policy()


class Inferring:
    """An IDM on the labeled episodes, then another method on all of them: true actions where known, else the IDM's."""

    def __init__(self, name: str, configs: dict[str, Any], seeds: list[int], sizes: Sizes, statistics: Statistics):
        self.configs, self.seeds = configs, seeds
        normalizer = Normalizer(*statistics.labeled)
        self.idm = idm.InverseDynamics(configs["agent"].idm, seeds, normalizer, sizes.action)
        learner = name.removeprefix(INFERRED)
        self.learner: Method = METHODS[learner].build(learner, configs, seeds, sizes, statistics)
        self.modules: dict[str, nn.Module] = {"idm": self.idm, **self.learner.modules}

    def phases(self, data: Windowed) -> list[Phase]:
        """The IDM's, then the learner's, whose data follows from the IDM as it is when the first of them begins."""
        assert isinstance(data, Data), "see Kind.at_once"
        lesson = idm.lessons(self.idm, self.seeds, data.labeled, self.configs["train"].device)
        inferred = cache(lambda: self.learner.phases(self._relabeled(data)))

        def later(number: int, phase: Phase) -> Phase:
            return replace(phase, step=lambda i: inferred()[number].step(i))

        first = Phase("idm", self.configs["agent"].idm.updates, lesson, policy=None)
        return [first, *(later(number, phase) for number, phase in enumerate(self.learner.phases(data)))]

    def policy(self) -> Policy:
        return self.learner.policy()

    def _relabeled(self, data: Data) -> Data:
        pairs = enumerate(zip(data.labeled, data.unlabeled, strict=True))
        everything = [[*known, *self.idm.relabel(hidden, model)] for model, (known, hidden) in pairs]
        return replace(data, labeled=everything, unlabeled=[[] for _ in everything])


@dataclass(frozen=True)
class Kind:
    """A method.

    unlabeled: reads the action-free episodes; windows: learns from windows, not single transitions;
    at_once: has to see every episode before it trains, so that none of them may wait on disk.
    """

    build: Callable[[str, dict[str, Any], list[int], Sizes, Statistics], Method]
    unlabeled: bool = False
    windows: bool = False
    at_once: bool = False


METHODS = {
    "lawm": Kind(ModelBased, unlabeled=True, windows=True),
    "clap": Kind(ModelBased, windows=True),
    "td3bc": Kind(ActorCritic),
    "bc": Kind(Cloning),
    "idm-td3bc": Kind(Inferring, unlabeled=True, at_once=True),
    "idm-clap": Kind(Inferring, unlabeled=True, windows=True, at_once=True),
}


def kind_of(name: str) -> Kind:
    """UserError for an unknown method."""
    if name not in METHODS:
        raise UserError(f"unknown method '{name}'; there are {', '.join(METHODS)}")
    return METHODS[name]


def check(name: str, labels: Labels) -> None:
    """UserError for an unknown method, or labels that leave it nothing to do or contradict each other."""
    kind_of(name)
    if labels.oracle and name.startswith(INFERRED):
        learner = name.removeprefix(INFERRED)
        raise UserError(f"--oracle gives every action, so {name} has none to infer; take --method {learner}")
    if labels.oracle and labels.redrawn:
        raise UserError("--oracle labels every episode, so there is nothing for --label-frac or --label-seed to draw")


def build(name: str, configs: dict[str, Any], seeds: list[int], sizes: Sizes, statistics: Statistics) -> Method:
    """N models with the initial weights of their seeds, on the recipe's device."""
    method = METHODS[name].build(name, configs, seeds, sizes, statistics)
    device = usable_device(configs["train"].device, "train.device")
    for module in method.modules.values():
        module.to(device)
    return method
