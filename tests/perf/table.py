"""The table of figures, and the line that says on what they were measured."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("torch", "numpy", "pyarrow", "h5py", "mujoco", "datasets")


class Row(NamedTuple):
    """One line of the table; `target` is empty where none is set."""

    what: str
    figure: str
    target: str
    how: str


def told(rows: Iterator[Row]) -> Iterator[Row]:
    """The same rows, each told on stderr as it is done."""
    for row in rows:
        print(f"{row.what}: {row.figure}", file=sys.stderr, flush=True)
        yield row


def markdown(header: str, rows: Sequence[Row]) -> str:
    lines = [Row("what", "figure", "target", "how measured"), Row("---", "---:", "---:", "---"), *rows]
    return "\n".join([header, "", *(f"| {' | '.join(line)} |" for line in lines)]) + "\n"


def header(threads: int, commit: str | None, load: float) -> str:
    """Hardware, versions and commit; `load` is the machine's load average before the first measurement."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{_cpu()}, {os.cpu_count()} cores, torch threads {threads}, load {load:.1f} at the start; "
        f"Python {platform.python_version()}, {versions}; commit {commit or 'unknown'}"
    )


def _cpu() -> str:
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
