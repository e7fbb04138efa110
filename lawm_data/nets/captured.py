"""An update as a CUDA graph: on a GPU its thousands of launches are recorded once, then replayed by one.

What a graph reads and writes lies at fixed addresses. Inputs are therefore copied into memory of the graph's own, noise
is drawn into such memory before each replay, and an update changes parameters, moments and buffers in place.

    call with this step, modulo the period     GPU                            CPU
    first                                      runs as it is                  runs as it is
    second                                     recorded, replayed             runs as it is
    every other                                inputs copied in, replayed     runs as it is
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from lawm_data.nets.blocks import Noise

Metrics = dict[str, Tensor]
Work = Callable[[], Tensor]


class Captured:
    """`update(*inputs)` -> metrics [N] by name, on the device of its inputs.

    Inputs are tensors, dataclasses of tensors, and at least one Noise. Shapes, draws and whatever else the update's
    course depends on may change with `noise.step % period` alone. Python code in it runs at the first two calls only.
    """

    def __init__(self, update: Callable[..., Metrics], period: int = 1):
        self.update, self.period = update, period
        self.graphs: dict[int, _Graph] = {}

    def __call__(self, *inputs: Any) -> Metrics:
        noise = next(x for x in inputs if isinstance(x, Noise))
        recorder = RECORDERS.get(torch.device(noise.device).type)
        if recorder is None:
            return self.update(*inputs)
        place = noise.step % self.period
        if place not in self.graphs:
            self.graphs[place] = _Graph(self.update, inputs, recorder(noise.device))
            return self.graphs[place].first()
        return self.graphs[place].replay(inputs)


class Recorder(Protocol):
    """How a device repeats work."""

    def first(self, work: Work) -> Tensor:
        """The result of work that is not recorded."""
        ...

    def record(self, work: Work) -> Work:
        """Its repetition: it does what `work` did, with the same memory, and gives the same tensor."""
        ...


class _CudaGraph:
    def __init__(self, device: torch.device | str):
        self.device = device

    def first(self, work: Work) -> Tensor:
        """On a stream aside, as CUDA wants what is to be recorded warmed up."""
        with torch.cuda.device(self.device):
            aside, here = torch.cuda.Stream(), torch.cuda.current_stream()
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                result = work()
            here.wait_stream(aside)
        return result

    def record(self, work: Work) -> Work:
        with torch.cuda.device(self.device):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                result = work()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


RECORDERS: dict[str, Callable[[torch.device | str], Recorder]] = {"cuda": _CudaGraph}
"""By type of device; where there is none, an update runs as it is."""


class _Graph:
    """One course of an update, on inputs that stay where they are."""

    def __init__(self, update: Callable[..., Metrics], inputs: tuple[Any, ...], recorder: Recorder):
        self.update, self.recorder = update, recorder
        self.inputs = tuple(_hold(x) for x in inputs)
        self.names: list[str] = []
        self.repeat: Work | None = None

    def first(self) -> Metrics:
        """Not recorded: it allocates what is changed in place ever after, an optimiser's moments for instance."""
        return self._named(self.recorder.first(self._run))

    def replay(self, inputs: tuple[Any, ...]) -> Metrics:
        for held, given in zip(self.inputs, inputs, strict=True):
            _refill(held, given)
        if self.repeat is None:
            self.repeat = self.recorder.record(self._run)
        return self._named(self.repeat().clone())  # the next replay writes over it

    def _run(self) -> Tensor:
        """Metrics [M, N]"""
        metrics = self.update(*self.inputs)
        self.names = list(metrics)
        return torch.stack([value.detach() for value in metrics.values()])

    def _named(self, values: Tensor) -> Metrics:
        return dict(zip(self.names, values.unbind(), strict=True))


class _Held(Noise):
    """Draws from its source at its first use; later gives the same memory, with numbers of the noise that filled it."""

    def __init__(self, source: Noise):
        super().__init__([], "", source.step, source.device)
        self.source: Noise | None = source
        self.drawn: list[tuple[str, tuple[int, ...], Tensor]] = []
        self.place = 0

    def normal(self, time: int, batch: int, size: int) -> Tensor:
        return self._next("normal", time, batch, size)

    def uniform(self, batch: int, size: int) -> Tensor:
        return self._next("uniform", batch, size)

    def refill(self, noise: Noise) -> None:
        self.source, self.place = None, 0
        for kind, shape, held in self.drawn:
            held.copy_(getattr(noise, kind)(*shape))

    def _next(self, kind: str, *shape: int) -> Tensor:
        if self.source is not None:
            self.drawn.append((kind, shape, getattr(self.source, kind)(*shape)))
        *known, held = self.drawn[self.place]
        assert known == [kind, shape], (known, kind, shape)
        self.place += 1
        return held


def _hold(x: Any) -> Any:
    """A copy with memory of its own."""
    if isinstance(x, Noise):
        return _Held(x)
    if isinstance(x, Tensor):
        return x.clone()
    if is_dataclass(x) and not isinstance(x, type):
        return replace(x, **{part.name: _hold(getattr(x, part.name)) for part in fields(x)})
    return x


def _refill(held: Any, given: Any) -> None:
    """Copy `given` into what `_hold` made of its like."""
    if isinstance(held, _Held):
        held.refill(given)
    elif isinstance(held, Tensor):
        assert held.shape == given.shape, (held.shape, given.shape)
        held.copy_(given)
    elif is_dataclass(held):
        for part in fields(held):
            _refill(getattr(held, part.name), getattr(given, part.name))
    else:
        assert held == given, (held, given)
