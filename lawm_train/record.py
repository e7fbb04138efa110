"""What a run came to: its evaluations, with what they depend on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import NamedTuple

from lawm_data.manifest import folder_name

ORACLE = " oracle"  # in the name of a method with all actions; behind it ` <kind>-prior` and PRIOR may stand
PRIOR = " prior-policy"
PRIOR_PHASE = "model"  # there the evaluated policy is the prior-policy control
STOPPED = "stopped"  # the state of a seed that diverged
STATES = (STOPPED, "finished", "unfinished")


def default_name(env: str, slice_name: str, method: str, oracle: bool, redrawn: float | None = None) -> str:
    """What runs are called but for their seed: `walker-walk-medium-replay-td3bc-oracle`.

    redrawn: the fraction of labels, where it is not the dataset's own.
    """
    name = f"{folder_name(env)}-{slice_name}-{method}{'-oracle' if oracle else ''}"
    return name if redrawn is None else f"{name}-frac{redrawn:g}"


def is_prior(method: str) -> bool:
    """Whether it is a prior-policy control."""
    return method.endswith(PRIOR)


class Evaluation(NamedTuple):
    """Raw returns of one evaluation, to the decimal that is printed."""

    phase: str
    update: int
    returns: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.returns)


@dataclass(frozen=True)
class Record:
    """The evaluations of one policy of one run; its prior-policy control is a record, and a method, of its own.

    method: as in the recipes, with ` oracle`, ` <kind>-prior` or ` prior-policy` behind; label_seed: None where
    none are drawn; dataset, settings: digests; state: finished, stopped or unfinished; seconds and memory_mb: of the
    process, which trained `beside` seeds, None until it is finished. Without evaluations only where a seed was stopped
    before its first.
    """

    run: str
    env: str
    slice: str
    dataset: str
    method: str
    label_frac: float | None
    label_seed: int | None
    seed: int
    labeled: int
    settings: str
    code: str | None
    state: str
    seconds: float | None
    memory_mb: int | None
    beside: int | None
    evaluations: tuple[Evaluation, ...] = ()

    @property
    def series(self) -> str:
        """The part of its name that runs share which differ by their seed alone."""
        return self.run.removesuffix(f"-s{self.seed}")

    @property
    def training(self) -> tuple[object, ...]:
        """What tells the training that it is of from others: method, data, labels and seed; last the settings."""
        data = self.env, self.slice, self.dataset
        return (self.method.removesuffix(PRIOR), *data, self.label_frac, self.label_seed, self.seed, self.settings)

    @property
    def has_default_name(self) -> bool:
        """Whether it is called so; settings that were tried have names of their own."""
        method, oracle = self.method.split()[0], ORACLE in self.method
        names = [default_name(self.env, self.slice, method, oracle, share) for share in (None, self.label_frac)]
        return self.series in names

    @property
    def last(self) -> Evaluation:
        return self.evaluations[-1]

    @cached_property
    def best(self) -> Evaluation:
        return max(self.evaluations, key=lambda evaluation: evaluation.mean)

    @property
    def kept(self) -> float:
        """Last / best."""
        return self.last.mean / self.best.mean if self.best.mean else 1.0
