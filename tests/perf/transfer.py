"""Push and pull over the loopback Hub, beside huggingface_hub's plain upload and snapshot_download.

Each transfer is a process of its own, which times itself after its imports; the server is this one.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from lawm_data.bench import Row
from lawm_data.manifest import Manifest

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from loopback_hub import LoopbackHub  # noqa: E402

REPO = "tester/bench"
TIMED = """
import sys, time
from pathlib import Path
{imports}
folder, repo = Path(sys.argv[1]), sys.argv[2]
began = time.perf_counter()
{action}
print("seconds", time.perf_counter() - began)
"""
PUSH = TIMED.format(
    imports="from lawm_data import publish",
    action="publish.push(folder, repo, private=False, tag=None, with_actions=True)",
)
PLAIN_PUSH = TIMED.format(
    imports="from huggingface_hub import HfApi",
    action="api = HfApi()\n"
    "api.create_repo(repo, repo_type='dataset')\n"
    "api.upload_folder(repo_id=repo, folder_path=folder, repo_type='dataset')",
)
PULL = TIMED.format(
    imports="from lawm_data import hub",
    action="remote = hub.pin(repo)\nfor path in remote.manifest.files:\n    remote.pull(path)",
)
PLAIN_PULL = TIMED.format(
    imports="from huggingface_hub import snapshot_download",
    action="snapshot_download(repo, repo_type='dataset')",
)


def rows(folder: Path, scratch: Path, repeats: int) -> Iterator[Row]:
    """`folder`: a dataset."""
    megabytes = sum(entry.bytes for entry in Manifest.load(folder).files.values()) / 1e6
    ways = {
        "push": (PUSH, True, "`lawm-data push`: verified before, compared after"),
        "plain upload": (PLAIN_PUSH, True, "`HfApi.upload_folder` of the same, for comparison"),
        "pull": (PULL, False, "file after file, each digest compared"),
        "plain download": (PLAIN_PULL, False, "`snapshot_download` of the same, eight files at once, for comparison"),
    }
    with LoopbackHub(scratch / "hub") as hub:
        for what, (code, empty, how) in ways.items():
            seconds = statistics.median(_timed(hub, code, folder, scratch, empty) for _ in range(repeats))
            how = f"{how}; {megabytes:,.0f} MB over loopback HTTP without Xet; median of {repeats}"
            yield Row(what, f"{megabytes / seconds:,.0f} MB/s", "", how)


def _timed(hub: LoopbackHub, code: str, folder: Path, scratch: Path, empty: bool) -> float:
    """Seconds of one transfer with an empty client cache, into an empty Hub where `empty`."""
    home = scratch / "home"
    shutil.rmtree(home, ignore_errors=True)
    if empty:
        hub.repositories.clear()
        for content in hub.objects.iterdir():
            content.unlink()
    environment = {**os.environ, **hub.environment(home), "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-c", code, str(folder), REPO]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])
