"""How fast this machine trains a method on a dataset: one Markdown table, and a trace of what an update does.

An update's floor is the time that its matrix products would take at the rate of one large product, measured in the same
run. The rest of its time goes into what small products lose, elementwise work, batches and noise. Products that are
rounded may beat the float32 rate. Nothing is asserted: figures depend on the machine.
"""

from __future__ import annotations

import itertools
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from lawm_data import files
from lawm_data.bench import Row, echoed, header, markdown, median_seconds
from lawm_data.errors import UserError
from lawm_data.nets.products import multiplying
from lawm_train.job import Job, build, load_data
from lawm_train.methods import Phase

UPDATES = 12  # done each time: a multiple of the recipes' agent.clap.stride, over which the agent's cost varies
PROFILED = 3  # updates of each phase in a trace
SIDE, PRODUCTS = 2048, 4  # of the matrices whose product gives the rate; multiplied each time


class Cost(NamedTuple):
    """Of one update: seconds, and floating-point operations of its matrix products (a multiply-add is two)."""

    seconds: float
    flop: float


class Training:
    """A job's phases, built as `lawm-train` builds them, on the job's own data."""

    def __init__(self, job: Job, repeats: int):
        self.job, self.repeats = job, repeats
        self.device: str = job.configs["train"].device
        data = load_data(job)
        self.phases = build(job, data).phases(data)

    def table(self) -> str:
        load = os.getloadavg()[0]
        return markdown(header(load, torch.get_num_threads()), list(echoed(self.rows())))

    def rows(self) -> Iterator[Row]:
        rate = matrix_rate(self.device, self.repeats)
        yield rate_row(rate, self.device, self.repeats)
        costs = []
        for phase in self.phases:
            costs.append(self.cost(phase))
            yield from self.cost_rows(phase, costs[-1], rate)
        for phase, cost in zip(self.phases, costs, strict=True):
            minutes = phase.updates * cost.seconds / 60
            yield Row(f"{phase.updates:,} {phase.name} updates", f"{minutes:.1f} min", "", "from the update above")
        for name, megabytes in peak_memory().items():
            whose = "GPU memory, by PyTorch's count" if name.startswith("gpu") else "of this process, data included"
            yield Row("peak memory", f"{megabytes:,} MB", "", whose)

    def cost(self, phase: Phase) -> Cost:
        seconds = seconds_per_update(phase, self.device, UPDATES, self.repeats)
        with FlopCounterMode(display=False) as counter:  # slows what it counts, so it is not timed
            each(phase.step, UPDATES)()
        return Cost(seconds, counter.get_total_flops() / UPDATES)

    def cost_rows(self, phase: Phase, cost: Cost, rate: float) -> Iterator[Row]:
        """rate: of `matrix_rate`."""
        many = "1 seed" if len(self.job.seeds) == 1 else f"{len(self.job.seeds)} seeds side by side"
        what = f"{phase.name} update, {many}"
        how = f"{self.job.method}, recipe {self.job.recipe}, batch and noise included; mean of {UPDATES}"
        yield Row(what, f"{_digits(1000 * cost.seconds)} ms", "", f"{how}; median of {self.repeats}")
        how = f"matrix products alone, forward and backward; mean of {UPDATES}"
        yield Row(f"{what}: products", f"{_digits(cost.flop / 1e9)} GFLOP", "", how)
        share = cost.flop / rate / cost.seconds
        how = "the time of these products at the matrix rate, over the time of the update"
        yield Row(f"{what}: share of the floor", f"{share:.1%}", "", how)

    def trace(self, path: Path) -> None:
        """Write a Chrome trace of PROFILED updates of each phase; UserError where that fails."""
        with torch.profiler.profile() as profiler:
            for phase, number in itertools.product(self.phases, range(PROFILED)):
                with torch.profiler.record_function(f"{phase.name} update {number}"):
                    phase.step(number)
            _finish(self.device)
        with tempfile.TemporaryDirectory(prefix="lawm-bench-") as folder:  # PyTorch leaves pieces where it fails
            made = Path(folder) / path.name
            profiler.export_chrome_trace(str(made))
            if not made.exists():  # it only logs that it could not write
                raise UserError(f"{path}: no trace, as PyTorch could not write it into {folder}; free some space there")
            files.write_bytes(path, made.read_bytes())


def check_trace(path: Path) -> None:
    """UserError where a trace cannot be put; told before anything is fetched or measured."""
    if path.suffix != ".json" or not path.parent.is_dir():
        raise UserError(f"--profile {path}: name a .json file in a folder that exists")


def matrix_rate(device: str, repeats: int) -> float:
    """Floating-point operations a second of a large float32 product, at torch's current number of threads."""
    a, b = (torch.ones(SIDE, SIDE, device=device) for _ in range(2))

    def multiply() -> None:
        with multiplying("float32", device):
            for _ in range(PRODUCTS):
                a @ b
        _finish(device)

    return 2 * SIDE**3 * PRODUCTS / median_seconds(multiply, repeats)


def rate_row(rate: float, device: str, repeats: int) -> Row:
    where = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device
    how = f"float32 products of {SIDE} x {SIDE} matrices on {where}, torch threads {torch.get_num_threads()}"
    return Row("matrix rate", f"{_digits(rate / 1e9)} GFLOP/s", "", f"{how}; median of {repeats}")


def seconds_per_update(phase: Phase, device: str, updates: int, repeats: int) -> float:
    """Median over `repeats` of the mean of so many updates, batch and noise included, after as many to warm up."""
    step = each(phase.step, updates)

    def action() -> None:
        step()
        _finish(device)

    return median_seconds(action, repeats) / updates


def each(step: Callable[[int], object], times: int) -> Callable[[], None]:
    """An action that calls `step` so many times, with numbers that go on from one action to the next."""
    numbers = itertools.count()

    def action() -> None:
        for number in itertools.islice(numbers, times):
            step(number)

    return action


def peak_memory() -> dict[str, int]:
    """Of this process since it began, in MB: `memory_mb`, and `gpu_memory_mb` where there is a GPU."""
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    peak = {"memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)}
    if torch.cuda.is_available():
        peak["gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 1e6)
    return peak


def _finish(device: str) -> None:
    """Wait for what an accelerator still has to do."""
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize(device)


def _digits(value: float) -> str:
    """Three significant digits."""
    return f"{float(f'{value:.3g}'):,g}"
