"""A client process of the tests that does many jobs side by side.

    python clients.py pull WHERE...          reads every row of every slice of each dataset
    python clients.py push FOLDER REPO ...   publishes each folder

Prints JSON: by WHERE or REPO what came of it, and this process's peak memory.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stream_client import fingerprint

from lawm_data import publish
from lawm_data.errors import UserError
from lawm_train.stream import SPLITS, open_dataset

AT_ONCE = 32


def content_of(where: str) -> str:
    """A digest of every episode of a dataset, read in order."""
    dataset, total = open_dataset(where), hashlib.sha256()
    for name in dataset.manifest.slices:
        for split in SPLITS:
            for episode in dataset.episodes(name, split):
                total.update(fingerprint(episode).encode())
    return total.hexdigest()


def outcome(job: Callable[[], str]) -> dict[str, Any]:
    began = time.monotonic()
    try:
        return {"content": job(), "error": None, "seconds": time.monotonic() - began}
    except UserError as error:
        return {"content": None, "error": str(error), "seconds": time.monotonic() - began}


def jobs(command: str, words: list[str]) -> dict[str, Callable[[], str]]:
    if command == "pull":
        return {where: lambda where=where: content_of(where) for where in words}
    options: dict[str, Any] = {"private": False, "tag": None, "with_actions": False}
    return {
        repo: lambda folder=folder, repo=repo: publish.push(Path(folder), repo, **options)
        for folder, repo in zip(words[::2], words[1::2], strict=True)
    }


def peak_megabytes() -> float:
    """Of this process alone, as Linux counts it since its start."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


if __name__ == "__main__":
    todo = jobs(sys.argv[1], sys.argv[2:])
    with ThreadPoolExecutor(AT_ONCE) as threads:
        outcomes = dict(zip(todo, threads.map(outcome, todo.values()), strict=True))
    print(json.dumps({"outcomes": outcomes, "peak_megabytes": peak_megabytes()}))
