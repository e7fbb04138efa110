"""Client processes against a loopback Hub: the real commands and libraries, with an environment of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from loopback_hub import LoopbackHub

ROOT = Path(__file__).parent.parent


def count_files(folder: Path) -> int:
    """Whole HDF5 files below a folder that a process writes to; unlike `rglob`, it bears folders that vanish."""
    found = (name for _, _, names in os.walk(folder) for name in names)
    return sum(name.endswith(".h5") and not name.startswith(".") for name in found)


def python(hub: LoopbackHub, *arguments: str | Path, timeout: float = 300, **environment: str) -> Any:
    """Run `python ARGUMENTS` to its end; the completed process with its output as text."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **hub.environment(), "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def client(hub: LoopbackHub, command: str, *words: str | Path, **environment: str) -> dict[str, Any]:
    """What clients.py prints. Without progress bars: those of many threads disturb each other."""
    environment = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment}
    done = python(hub, ROOT / "tests" / "clients.py", command, *words, timeout=120, **environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])
