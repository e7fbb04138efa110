"""A client process of the tests: `python hostile_client.py WHERE...` reads every row of every slice of each dataset.

Prints JSON: by WHERE the message of its UserError, or null where it was read whole; and this process's peak memory.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from lawm_data.errors import UserError
from lawm_train.stream import SPLITS, open_dataset


def refusal(where: str) -> str | None:
    try:
        dataset = open_dataset(where)
        for name in dataset.slices:
            for split in SPLITS:
                for _ in dataset.episodes(name, split):
                    pass
    except UserError as error:
        return str(error)
    return None


def peak_megabytes() -> float:
    """Of this process alone, as Linux counts it since its start."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


if __name__ == "__main__":
    refusals = {where: refusal(where) for where in sys.argv[1:]}
    print(json.dumps({"refusals": refusals, "peak_megabytes": peak_megabytes()}))
