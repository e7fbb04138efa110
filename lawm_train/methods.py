"""The methods by name: what each one builds, in which phases it trains, and how it acts.

A phase is a number of updates of some modules. `train.fit` knows phases only: a new method is a file and a class here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lawm_data.config import check_least
from lawm_data.errors import UserError
from lawm_data.nets.blocks import Noise, Normalizer
from lawm_data.windows import Pool, Windows, moments
from lawm_train import bc, clap, idm, lawm

Policy = Callable[[Tensor, Tensor], Tensor]
"""observation [N, B, O], first [N, B] -> action [N, B, A]"""

FREE_NATS_SLICES = ("medium-replay", "plan2explore")  # Table 2


@dataclass(frozen=True)
class AgentConfig:
    """The recipe's `agent` section: one part a method."""

    clap: clap.Config = field(default_factory=clap.Config)
    bc: bc.Config = field(default_factory=bc.Config)
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

    def __post_init__(self) -> None:
        # two windows: one labeled, one not
        check_least("train", self, updates=1, batch=2, window=1, labeled_share=0, log_every=1, checkpoint_every=1)
        if self.labeled_share > 1:
            raise UserError(f"train.labeled_share is {self.labeled_share}, expected a share of the batch, up to 1")


@dataclass(frozen=True)
class Sizes:
    """What a method must know of the data before it sees any. free_nats: what Table 2 gives the slice."""

    observation: int
    action: int
    terminal: bool
    free_nats: float


@dataclass(frozen=True)
class Data:
    """The pools of each model: `labeled[n]`, and `unlabeled[n]`, None where everything is labeled."""

    sizes: Sizes
    labeled: list[Pool]
    unlabeled: list[Pool | None]


@dataclass(frozen=True)
class Phase:
    """`step(i)` does update i and returns metrics [N]; `policy` is evaluated at the end, and before if `watched`."""

    name: str
    updates: int
    step: Callable[[int], dict[str, Tensor]]
    policy: Callable[[], Policy]
    watched: bool = True


class Method(Protocol):
    """N models (seeds) of one method. `modules` holds every parameter, buffer and optimiser."""

    modules: dict[str, nn.Module]

    def phases(self, data: Data) -> list[Phase]: ...

    def policy(self) -> Policy: ...


class ModelBased:
    """LAWM and C-LAP: a world model, then an agent in its imagination."""

    def __init__(self, name: str, configs: dict[str, Any], seeds: list[int], sizes: Sizes, normalizer: Normalizer):
        self.configs, self.seeds = configs, seeds
        model = configs["model"]
        free_nats = sizes.free_nats if model.free_nats is None else model.free_nats
        prior = model.prior or ("standard" if name == "lawm" else "learned")
        model = replace(model, prior=prior, free_nats=free_nats)
        self.world = lawm.WorldModel(model, seeds, normalizer, sizes.action, sizes.terminal)
        self.agent = clap.Agent(configs["agent"].clap, self.world, seeds)
        self.modules: dict[str, nn.Module] = {"world": self.world, "agent": self.agent}

    def phases(self, data: Data) -> list[Phase]:
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

    def _windows(self, data: Data) -> Windows:
        train: TrainConfig = self.configs["train"]
        pools = [[a, b] if b else [a] for a, b in zip(data.labeled, data.unlabeled, strict=True)]
        labeled = train.batch
        if len(pools[0]) == 2:
            labeled = min(max(round(train.labeled_share * train.batch), 1), train.batch - 1)
        counts = [labeled, train.batch - labeled][: len(pools[0])]
        return Windows(pools, self.seeds, train.window, counts, train.device)

    def _noise(self, stream: str, step: int) -> Noise:
        return Noise(self.seeds, stream, step, self.configs["train"].device)


class Cloning:
    """Behaviour cloning on single transitions."""

    def __init__(self, name: str, configs: dict[str, Any], seeds: list[int], sizes: Sizes, normalizer: Normalizer):
        self.configs, self.seeds = configs, seeds
        self.cloner = bc.Cloner(configs["agent"].bc, seeds, normalizer, sizes.action)
        self.modules: dict[str, nn.Module] = {"cloner": self.cloner}

    def phases(self, data: Data) -> list[Phase]:
        config: bc.Config = self.configs["agent"].bc
        pools = [[pool] for pool in data.labeled]
        windows = Windows(pools, self.seeds, 1, [config.batch], self.configs["train"].device)
        return [Phase("bc", config.updates, lambda i: self.cloner.update(windows.batch(i, "bc")), self.policy)]

    def policy(self) -> Policy:
        return self.cloner.policy()


METHODS: dict[str, type[ModelBased] | type[Cloning]] = {"lawm": ModelBased, "clap": ModelBased, "bc": Cloning}


def uses_unlabeled(name: str) -> bool:
    """Whether the method reads the action-free episodes; UserError for an unknown method."""
    if name not in METHODS:
        raise UserError(f"unknown method '{name}'; there are {', '.join(sorted(METHODS))}")
    return name == "lawm"


def shortest_episode(name: str, train: TrainConfig) -> int:
    """Steps that an episode must have: a window of the model-based methods, one transition for cloning."""
    return 1 if name == "bc" else train.window


def normalizer_of(data: Data) -> Normalizer:
    """Statistics of exactly the rows that each model trains on, [N, 1, O]."""
    own = [moments([pool for pool in pair if pool]) for pair in zip(data.labeled, data.unlabeled, strict=True)]
    return Normalizer(torch.stack([mean for mean, _ in own]), torch.stack([std for _, std in own]))


def build(name: str, configs: dict[str, Any], seeds: list[int], sizes: Sizes, normalizer: Normalizer) -> Method:
    """N models with the initial weights of their seeds, on the recipe's device."""
    method = METHODS[name](name, configs, seeds, sizes, normalizer)
    device = configs["train"].device
    try:
        torch.zeros(0, device=device)
    except (AssertionError, RuntimeError) as error:  # PyTorch raises the former where it was built without CUDA
        reason = str(error).splitlines()[0]
        raise UserError(f"train.device is {device}, which PyTorch cannot use here ({reason}); set cpu") from None
    for module in method.modules.values():
        module.to(device)
    return method
