"""The columns of the paper's Table 4, and the paper's own numbers in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

COLUMNS = ("mean", "std", "min", "p25", "median", "p75", "max")
EPISODES = 2000  # of each dataset

# (env, slice) -> COLUMNS, as printed (section E)
PAPER = {
    ("walker-walk", "expert"): (879.5, 60.4, 750.2, 836.1, 893.4, 927.6, 987.2),
    ("walker-walk", "medium"): (543.4, 116.2, 275.7, 458.5, 564.1, 647.3, 700.0),
    ("walker-walk", "medium-replay"): (333.3, 182.5, 4.8, 167.6, 372.9, 501.3, 584.2),
    ("walker-walk", "plan2explore"): (173.4, 79.0, 4.2, 119.9, 169.4, 227.9, 418.5),
    ("cheetah-run", "expert"): (837.5, 46.3, 750.3, 797.4, 846.6, 877.2, 910.9),
    ("cheetah-run", "medium"): (483.7, 80.9, 301.1, 421.2, 495.9, 555.3, 599.9),
    ("cheetah-run", "medium-replay"): (297.7, 200.4, 2.4, 100.9, 287.0, 494.9, 599.8),
    ("cheetah-run", "plan2explore"): (157.7, 195.4, 0.0, 24.2, 59.7, 243.1, 804.4),
    ("hopper-stand", "expert"): (887.0, 41.0, 800.0, 856.2, 894.9, 919.6, 983.9),
    ("hopper-stand", "medium"): (480.7, 159.4, 250.6, 336.8, 453.5, 637.2, 750.0),
    ("hopper-stand", "medium-replay"): (149.2, 202.9, 0.0, 0.0, 9.2, 297.6, 699.8),
    ("hopper-stand", "plan2explore"): (87.7, 51.4, 0.0, 54.6, 94.3, 124.2, 256.3),
}
SLICES = sorted({name for _, name in PAPER})


def statistics(returns: Sequence[float]) -> dict[str, float]:
    """A row of Table 4: mean, std (of the population), min, quartiles, max; empty for no returns."""
    if not len(returns):
        return {}
    values = np.asarray(returns, np.float64)
    p25, median, p75 = np.percentile(values, [25, 50, 75])
    row = (values.mean(), values.std(), values.min(), p25, median, p75, values.max())
    return {name: round(float(value), 4) for name, value in zip(COLUMNS, row, strict=True)}


def paper(env: str, slice_name: str | None) -> dict[str, float] | None:
    """The paper's row for a slice of `env`, None where it has none."""
    row = PAPER.get((env, slice_name or ""))
    return dict(zip(COLUMNS, row, strict=True)) if row else None


def difference(row: Mapping[str, float], paper_row: Mapping[str, float]) -> dict[str, float]:
    """`row` minus the paper's, column by column."""
    return {column: round(row[column] - paper_row[column], 4) for column in COLUMNS}
