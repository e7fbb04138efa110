"""Table 1 of "Latent Action World Models for Control with Unlabeled Trajectories", as printed: the only copy here."""

from __future__ import annotations

from typing import NamedTuple

LABEL_FRACTION = 0.05  # of every column that is no oracle
METHODS = ("td3bc oracle", "clap oracle", "td3bc", "clap", "idm-td3bc", "lawm")
"""The columns in the order of the paper."""

_PRINTED = """
cheetah-run  expert         83.4 ± 2.4   79.6 ± 2.0    52.9 ± 6.8    69.1 ± 9.4    85.6 ± 1.8   52.4 ± 23.5
cheetah-run  medium         62.6 ± 2.1   57.8 ± 3.0    32.4 ± 4.1    47.9 ± 2.5    61.3 ± 2.0   54.6 ± 8.7
cheetah-run  medium-replay  53.9 ± 1.8   65.0 ± 8.0    14.0 ± 1.6    34.6 ± 3.4    46.6 ± 19.2  68.4 ± 1.4
cheetah-run  plan2explore   8.6 ± 0.3    28.5 ± 6.2    4.0 ± 0.6     12.6 ± 1.2    4.8 ± 4.2    26.5 ± 4.6
hopper-stand expert         72.1 ± 2.7   40.0 ± 14.6   46.5 ± 5.1    13.6 ± 9.0    56.5 ± 8.4   37.0 ± 17.0
hopper-stand medium         45.8 ± 1.9   59.5 ± 24.9   39.6 ± 12.1   60.0 ± 12.1   41.4 ± 11.5  65.0 ± 16.6
hopper-stand medium-replay  15.3 ± 3.3   63.1 ± 6.5    10.2 ± 3.4    19.0 ± 5.5    13.7 ± 6.9   46.9 ± 14.1
hopper-stand plan2explore   2.3 ± 0.5    51.4 ± 4.8    0.8 ± 2.0     27.3 ± 1.2    2.6 ± 1.2    54.1 ± 5.0
walker-walk  expert         92.8 ± 9.7   93.1 ± 0.5    89.6 ± 3.5    88.0 ± 4.2    91.0 ± 2.2   94.3 ± 0.6
walker-walk  medium         71.5 ± 4.7   71.1 ± 1.0    64.7 ± 1.2    68.7 ± 4.3    64.3 ± 5.5   91.4 ± 1.1
walker-walk  medium-replay  63.9 ± 2.9   81.2 ± 4.6    35.9 ± 2.4    75.7 ± 6.1    52.3 ± 6.3   75.9 ± 23.7
walker-walk  plan2explore   18.5 ± 0.9   69.2 ± 5.4    11.8 ± 7.8    34.1 ± 3.3    6.0 ± 1.9    81.9 ± 3.4
"""
AVERAGE = dict(zip(METHODS, (49.2, 63.3, 33.5, 45.9, 43.8, 62.4), strict=True))


class Figure(NamedTuple):
    """Return / 10: mean and standard deviation over seeds."""

    mean: float
    std: float

    def __str__(self) -> str:
        return f"{self.mean:.1f} ± {self.std:.1f}"


def _parse(line: str) -> tuple[tuple[str, str], dict[str, Figure]]:
    env, slice_name, *words = line.split()
    numbers = [float(word) for word in words if word != "±"]
    figures = map(Figure, numbers[::2], numbers[1::2])
    return (env, slice_name), dict(zip(METHODS, figures, strict=True))


TABLE_1 = dict(map(_parse, _PRINTED.strip().splitlines()))
"""By (env, slice) and method."""
