"""The methods by name: what each one builds, in which phases it trains, and how it acts.

A phase is a number of updates of some modules. `train.fit` knows phases only: a new method is a file, its Config as a
field of `AgentConfig`, and an entry of `METHODS` of the same name with what builds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Annotated, Any, Protocol

import torch
from torch import Tensor, nn

from lawm_data.config import Bounds, Count, NonNegative, Share
from lawm_data.errors import UserError
from lawm_data.labels import check_fraction
from lawm_data.nets.blocks import Noise, Normalizer
from lawm_data.nets.captured import Captured
from lawm_data.nets.products import multiplying
from lawm_data.windows import Batch, check_stride
from lawm_train import bc, clap, idm, lawm, td3bc
from lawm_train.data import Batches, Data, Labels, Sizes, Statistics, Windowed
from lawm_train.evaluate import Act

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

    updates: Count = 10_000  # of the world model
    batch: Annotated[int, Bounds(2)] = 16  # windows: one labeled, one not, at least
    window: Count = 50  # transitions
    even: bool = True  # an episode's first and last steps are in as many windows as its middle, see Pool.draw
    labeled_share: Share = 0.5  # of a batch; 0.05 is the paper read literally
    joint: bool = False  # world model and agent in one phase
    log_every: Count = 100
    checkpoint_every: Count = 500
    device: str = "cpu"
    pool_gb: NonNegative = 4.0  # of trajectories in memory; what does not fit is read in turns


@dataclass(frozen=True)
class Phase:
    """`step(i)` does update i and returns metrics [N]; a `policy` is evaluated at the end, and before if `watched`.

    period: of `Captured`.
    """

    name: str
    updates: int
    step: Callable[[int], dict[str, Tensor]]
    policy: Callable[[], Act] | None
    watched: bool = True
    period: int = 1


@dataclass(frozen=True)
class Setup:
    """What a method is built from. configs: recipe sections, see policy.SECTIONS; seeds: of the N models."""

    name: str
    configs: dict[str, Any]
    seeds: list[int]
    sizes: Sizes
    statistics: Statistics

    @property
    def agent(self) -> AgentConfig:
        return self.configs["agent"]

    @property
    def train(self) -> TrainConfig:
        return self.configs["train"]


class Method(Protocol):
    """N models (seeds) of one method. `modules` holds every parameter, buffer and optimiser."""

    modules: dict[str, nn.Module]

    def phases(self, data: Windowed) -> list[Phase]: ...

    def policy(self) -> Act: ...


class ModelBased:
    """LAWM and C-LAP: a world model, then an agent in its imagination."""

    def __init__(self, setup: Setup):
        self.setup, sizes = setup, setup.sizes
        check_stride("agent.clap", setup.agent.clap.stride, setup.train.window)
        model: lawm.Config = setup.configs["model"]
        free_nats = sizes.free_nats if model.free_nats is None else model.free_nats
        prior = model.prior or ("standard" if setup.name == "lawm" else "learned")
        model = replace(model, prior=prior, free_nats=free_nats)
        mean, std = setup.statistics.all
        bounds = model.observation_floor, model.observation_clip
        normalizer = Normalizer(mean, std, *bounds) if model.normalize else Normalizer.identity(mean)
        self.world = lawm.WorldModel(model, setup.seeds, normalizer, sizes.action, sizes.terminal)
        self.agent = clap.Agent(setup.agent.clap, self.world, setup.seeds)
        self.modules: dict[str, nn.Module] = {"world": self.world, "agent": self.agent}

    def phases(self, data: Windowed) -> list[Phase]:
        train, windows, stride = self.setup.train, self._windows(data), self.setup.agent.clap.stride

        def step(update: Captured, *, batches: str, noises: Sequence[str]) -> Callable[[int], dict[str, Tensor]]:
            """batches, noises: the streams that they are drawn from."""
            return lambda i: update(windows.batch(i, batches), *(self._noise(stream, i) for stream in noises))

        if train.joint:
            joint = step(Captured(self._joint_update, stride), batches="model", noises=["model", "agent"])
            return [Phase("joint", train.updates, joint, self.policy, period=stride)]
        model = step(Captured(self._model_update), batches="model", noises=["model"])
        agent = step(Captured(self._agent_update, stride), batches="agent", noises=["observe", "agent"])
        return [
            Phase("model", train.updates, model, self.world.policy, watched=False),
            Phase("agent", self.setup.agent.clap.updates, agent, self.policy, period=stride),
        ]

    def policy(self) -> Act:
        return self.agent.policy()

    def _model_update(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        return self.world.update(batch, noise)[0]

    def _agent_update(self, batch: Batch, observing: Noise, noise: Noise) -> dict[str, Tensor]:
        with torch.no_grad(), multiplying(self.world.config.products, batch.reward.device):
            states = self.world.observe(batch, observing).states
        return self.agent.update(states, noise)

    def _joint_update(self, batch: Batch, noise: Noise, imagining: Noise) -> dict[str, Tensor]:
        metrics, states = self.world.update(batch, noise)
        return metrics | self.agent.update(states, imagining)

    def _windows(self, data: Windowed) -> Batches:
        train = self.setup.train
        labeled = train.batch
        if data.kinds == 2:
            labeled = min(max(round(train.labeled_share * train.batch), 1), train.batch - 1)
        counts = [labeled, train.batch - labeled][: data.kinds]
        return data.windows(self.setup.seeds, counts, train.device, train.even)

    def _noise(self, stream: str, step: int) -> Noise:
        return Noise(self.setup.seeds, stream, step, self.setup.train.device)


class ModelFree:
    """TD3+BC and behaviour cloning: one module, called `part`, that learns from single transitions."""

    def __init__(self, setup: Setup, part: str, learner: td3bc.Agent | bc.Cloner, period: int = 1):
        """period: of `Captured`."""
        self.setup, self.learner, self.period = setup, learner, period
        self.modules: dict[str, nn.Module] = {part: learner}

    def phases(self, data: Windowed) -> list[Phase]:
        name, seeds, device = self.setup.name, self.setup.seeds, self.setup.train.device
        windows = data.windows(seeds, [self.learner.config.batch], device)
        update = Captured(self.learner.update, self.period)

        def step(i: int) -> dict[str, Tensor]:
            return update(windows.batch(i, name), Noise(seeds, name, i, device))

        return [Phase(name, self.learner.config.updates, step, self.policy, period=self.period)]

    def policy(self) -> Act:
        return self.learner.policy()


def _cloning(setup: Setup) -> ModelFree:
    normalizer = Normalizer(*setup.statistics.all)
    return ModelFree(setup, "cloner", bc.Cloner(setup.agent.bc, setup.seeds, normalizer, setup.sizes.action))


def _actor_critic(setup: Setup) -> ModelFree:
    config, normalizer = setup.agent.td3bc, td3bc.normalizer(*setup.statistics.all)
    agent = td3bc.Agent(config, setup.seeds, normalizer, setup.sizes.action)
    return ModelFree(setup, "agent", agent, config.actor_every)


class Inferring:
    """An IDM on the labeled episodes, then another method on all of them: true actions where known, else the IDM's."""

    def __init__(self, setup: Setup):
        self.setup = setup
        normalizer = Normalizer(*setup.statistics.labeled)
        self.idm = idm.InverseDynamics(setup.agent.idm, setup.seeds, normalizer, setup.sizes.action)
        learner = setup.name.removeprefix(INFERRED)
        self.learner: Method = METHODS[learner].build(replace(setup, name=learner))
        self.modules: dict[str, nn.Module] = {"idm": self.idm, **self.learner.modules}

    def phases(self, data: Windowed) -> list[Phase]:
        """The IDM's, then the learner's, whose data follows from the IDM as it is when the first of them begins."""
        assert isinstance(data, Data), "see Kind.reads_all_first"
        step = idm.steps(self.idm, self.setup.seeds, data.labeled, self.setup.train.device)
        inferred = cache(lambda: self.learner.phases(self._relabeled(data)))

        def later(number: int, phase: Phase) -> Phase:
            return replace(phase, step=lambda i: inferred()[number].step(i))

        first = Phase("idm", self.setup.agent.idm.updates, step, policy=None)
        return [first, *(later(number, phase) for number, phase in enumerate(self.learner.phases(data)))]

    def policy(self) -> Act:
        return self.learner.policy()

    def _relabeled(self, data: Data) -> Data:
        pairs = enumerate(zip(data.labeled, data.unlabeled, strict=True))
        everything = [[*known, *self.idm.relabel(hidden, model)] for model, (known, hidden) in pairs]
        return replace(data, labeled=everything, unlabeled=[[] for _ in everything])


@dataclass(frozen=True)
class Kind:
    """A method.

    unlabeled: reads the action-free episodes; model_based: learns a world model from windows, an agent within it, where
    others learn from single transitions; reads_all_first: needs every episode in memory before its first update.
    """

    build: Callable[[Setup], Method]
    unlabeled: bool = False
    model_based: bool = False
    reads_all_first: bool = False


METHODS = {
    "lawm": Kind(ModelBased, unlabeled=True, model_based=True),
    "clap": Kind(ModelBased, model_based=True),
    "td3bc": Kind(_actor_critic),
    "bc": Kind(_cloning),
    "idm-td3bc": Kind(Inferring, unlabeled=True, reads_all_first=True),
    "idm-clap": Kind(Inferring, unlabeled=True, model_based=True, reads_all_first=True),
}


def kind_of(name: str) -> Kind:
    """UserError for an unknown method."""
    if name not in METHODS:
        raise UserError(f"unknown method '{name}'; there are {', '.join(METHODS)}")
    return METHODS[name]


def trains_by_updates(name: str) -> bool:
    """Whether a method does `train.updates` updates; for others they only decide how often it is evaluated."""
    return kind_of(name).model_based


def length_of(name: str, train: TrainConfig) -> str:
    """The setting for how many updates a method's last phase lasts: a run may be continued with more of them."""
    if trains_by_updates(name):
        return "train.updates" if train.joint else "agent.clap.updates"
    return f"agent.{name.removeprefix(INFERRED)}.updates"


def parts_of(name: str) -> list[str]:
    """The parts of a recipe that a method reads, such as `agent.clap`. UserError for an unknown method."""
    learner, kind = name.removeprefix(INFERRED), kind_of(name)
    own = ["model", "agent.clap"] if kind.model_based else [f"agent.{learner}"]
    return [*own, *(["agent.idm"] if learner != name else []), "train", "evaluate"]


def check(name: str, labels: Labels) -> None:
    """UserError for an unknown method, or labels that leave it nothing to do or contradict each other."""
    kind_of(name)
    if labels.fraction is not None:
        check_fraction(labels.fraction)
    if labels.oracle and name.startswith(INFERRED):
        learner = name.removeprefix(INFERRED)
        raise UserError(f"--oracle gives every action, so {name} has none to infer; take --method {learner}")
    if labels.oracle and labels.named:
        raise UserError("--oracle labels every episode, so there is nothing for --label-frac or --label-seed to draw")


def build(setup: Setup) -> Method:
    """N models with the initial weights of their seeds, on the recipe's device."""
    method = METHODS[setup.name].build(setup)
    for module in method.modules.values():
        module.to(setup.train.device)
    return method
