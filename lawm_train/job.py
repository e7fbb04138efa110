"""What is asked for: one method on one slice with several seeds, its run folders, its data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lawm_data import config
from lawm_data.checkout import code_commit
from lawm_data.errors import UserError
from lawm_data.nets.optim import usable_device
from lawm_data.runs import NOT_COMPARED, Run, completed
from lawm_train import methods, pool
from lawm_train.data import Labels, Sizes, Windowed, check_labeled, load
from lawm_train.methods import Method
from lawm_train.record import default_name
from lawm_train.stream import Dataset


@dataclass(frozen=True)
class Job:
    """One method on one slice with several seeds, each with a run folder of its own."""

    dataset: Dataset
    slice_name: str
    method: str
    seeds: Sequence[int]
    configs: dict[str, Any]  # recipe sections, see policy.SECTIONS
    recipe: str
    labels: Labels = Labels()

    @property
    def redrawn(self) -> bool:
        """Whether its labels are others than the dataset's."""
        return self.labels.redrawn(self.dataset.manifest, self.seeds)

    @property
    def splits(self) -> list[pool.Split]:
        """What the method reads, labeled before unlabeled."""
        kind = methods.kind_of(self.method)
        window = self.configs["train"].window if kind.model_based else 1
        both = kind.unlabeled or self.labels.oracle or self.redrawn
        names = ("labeled", "unlabeled") if both else ("labeled",)
        return [pool.Split(self.dataset, self.slice_name, name, window) for name in names]

    @property
    def gigabytes(self) -> float:
        """The memory that these take whole: one copy for each draw of the labels, and where actions are inferred
        another for each seed.
        """
        kind, redrawn = methods.kind_of(self.method), self.redrawn
        draws = set(self.labels.draws(self.dataset.manifest, self.seeds))
        parts = [draw[0] if draw and redrawn and not kind.unlabeled else 1.0 for draw in draws]
        copies = sum(parts) + len(self.seeds) * kind.reads_all_first
        return copies * sum(split.size for split in self.splits) / pool.GIGABYTE

    @property
    def fits(self) -> bool:
        return self.gigabytes <= self.configs["train"].pool_gb

    @property
    def reads_all_first(self) -> bool:
        """Whether every episode has to be read before the first update."""
        return methods.kind_of(self.method).reads_all_first or self.labels.oracle or self.redrawn

    @property
    def described(self) -> str:
        """The method and whose actions it reads, for the first line that a training prints."""
        return self.method + self.labels.describe(self.dataset.manifest, self.seeds)

    @property
    def length(self) -> str:
        """The setting that a run may be continued with more of."""
        return methods.length_of(self.method, self.configs["train"])

    def run_config(self, seed: int, sizes: Sizes, labeled: int) -> dict[str, Any]:
        """What config.json holds; everything that the numbers of a run depend on."""
        return {**self.asked(seed), "labeled": labeled, "sizes": asdict(sizes), "code": code_commit()}

    @property
    def defaults(self) -> dict[str, Any]:
        """Of all settings, for `Run.begin`; but the pool's: a run without it held all of its data."""
        found = config.as_dict({name: type(section)() for name, section in self.configs.items()})
        del found["train"]["pool_gb"]
        return found

    def is_of(self, run: Run, seed: int) -> bool:
        """Whether a run that was begun is the one of this job with this seed, as far as is known without its data."""
        saved, asked = run.config, self.asked(seed)
        saved["settings"] = completed(saved["settings"], asked["settings"], self.defaults)
        same = all(saved[key] == asked[key] for key in asked.keys() - NOT_COMPARED.keys() - {"dataset"})
        return same and saved["dataset"]["digest"] == self.dataset.digest  # from a folder or the Hub, see Origin

    def asked(self, seed: int) -> dict[str, Any]:
        """What of it is known before the data are read."""
        manifest = self.dataset.manifest
        fraction, label_seed = self.labels.draw(manifest, seed)
        settings = config.as_dict(self.configs)
        if self.reads_all_first or self.fits:
            del settings["train"]["pool_gb"]  # what fits is the same in a pool of any size
        return {
            "method": self.method,
            "oracle": self.labels.oracle,
            "env": manifest.env,
            "repeat": manifest.repeat,
            "slice": self.slice_name,
            "seed": seed,
            "label_frac": fraction,
            "label_seed": label_seed,
            "dataset": {"digest": self.dataset.digest, "revision": self.dataset.revision},
            "settings": settings,
            "about": {
                "dataset": self.dataset.repo,
                "layout": [list(part) for part in manifest.layout],
                "action_bounds": manifest.action_bounds and [list(pair) for pair in manifest.action_bounds],
            },
        }

    def check(self) -> None:
        """UserError for data that are missing or do not fit, and labels that change nothing, as far as the manifest and
        one file tell.
        """
        check_labeled(self.dataset, self.slice_name, self.method)
        self._check_labels()
        if self.reads_all_first and not self.fits:
            raise UserError(
                f"method {self.described} reads every episode before it trains: slice "
                f"{self.slice_name} takes {self.gigabytes:.2g} GB in memory for all seeds together, and the pool is of "
                f"{self.configs['train'].pool_gb:g}; raise --pool-gb above that, or train fewer --seeds at a time"
            )
        withheld = self.dataset.manifest.slices[self.slice_name].splits.get("withheld")
        if self.labels.oracle or (self.redrawn and withheld):
            self.dataset.check_withheld(self.slice_name)

    def _check_labels(self) -> None:
        """UserError where actions that are all kept leave nothing to draw, or to infer."""
        if self.labels.fraction is not None or self.dataset.manifest.label_fraction is not None:
            return
        told = f"{self.dataset.describe()}: slice {self.slice_name} keeps every action that was recorded"
        if isinstance(self.labels.seed, int):
            raise UserError(f"{told}, so --label-seed draws nothing; name --label-frac beside it")
        hidden = self.dataset.manifest.slices[self.slice_name].splits.get("unlabeled")
        if self.method.startswith(methods.INFERRED) and not hidden:
            learner = self.method.removeprefix(methods.INFERRED)
            raise UserError(f"{told}, so {self.method} has none to infer; take --method {learner}")

    @property
    def name(self) -> str:
        """What its runs are called by default."""
        manifest, share = self.dataset.manifest, self.labels.fraction
        redrawn = None if share == manifest.label_fraction else share
        return default_name(manifest.env, self.slice_name, self.method, self.labels.oracle, redrawn)

    def folders(self, runs_root: Path, name: str | None = None) -> dict[int, Run]:
        """The run of each seed, begun or not. UserError for a name that is a path."""
        check_name(name)
        return {seed: Run(runs_root / f"{name or self.name}-s{seed}") for seed in self.seeds}

    def as_begun(self, runs: Iterable[Run]) -> Job:
        """The job on the very data that its first run began with; what is new on the Hub is told, and not mixed in."""
        for run in runs:
            if run.exists and not run.trains:
                raise UserError(f"{run.path}: the run of a collector; choose another --name")
            if run.exists:
                return replace(self, dataset=self.dataset.as_begun(**run.config["dataset"]))
        return self


def check_name(name: str | None) -> None:
    """UserError for a name of runs that is a path."""
    if name is not None and Path(name).name != name:
        raise UserError(f"--name {name}: expected a name without folders; --root says where runs/ lies")


def load_data(job: Job) -> Windowed:
    """The episodes of each seed; the action-free ones only if the method wants them. What does not fit is not read.

    UserError where it does not fit and has to, and for a device that is not there.
    """
    usable_device(job.configs["train"].device, "train.device")
    kind, pool_gb = methods.kind_of(job.method), job.configs["train"].pool_gb
    job.check()
    if job.fits:
        window = job.splits[0].window
        return load(job.dataset, job.slice_name, job.labels, job.seeds, kind.unlabeled, window)
    return pool.moving([split for split in job.splits if split.paths], len(job.seeds), pool_gb)


def build(job: Job, data: Windowed) -> Method:
    """The job's models with their initial weights, normalised by the statistics of the data."""
    return methods.build(methods.Setup(job.method, job.configs, list(job.seeds), data.sizes, data.statistics()))
