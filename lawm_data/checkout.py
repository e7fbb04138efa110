"""Which code this is."""

from __future__ import annotations

import subprocess
from pathlib import Path


def code_commit() -> str | None:
    """Commit of the checkout this code runs from, with `+` when it has changes; None from a wheel."""
    here = Path(__file__).parent
    try:
        _git(here, "ls-files", "--error-unmatch", Path(__file__).name)  # a checkout around the wheel is not its own
        head = _git(here, "rev-parse", "HEAD")
        return head + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
