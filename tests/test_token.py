"""The token appears in no log, file, card, error or process argument."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from loopback_hub import SECRET, LoopbackHub, as_json
from made_dataset import made_episodes, make_dataset
from processes import ROOT

REPO = "tester/lawm-custom-made"
TRAIN = ["--method", "bc", "--set", "agent.bc.updates=2", "--set", "train.window=8"]


def seen_by_others(process: subprocess.Popen[bytes]) -> bytes:
    """The arguments of a process and of its children, which any user of the machine may read."""
    pids = [process.pid]
    for pid in pids:
        try:
            pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except OSError:
            continue
    lines = []
    for pid in pids:
        with suppress(OSError):  # it has ended
            lines.append(Path(f"/proc/{pid}/cmdline").read_bytes())
    return b"".join(lines)


def test_token_is_left_nowhere(tmp_path: Path) -> None:
    home, workspace, said = tmp_path / "home", tmp_path / "lawm", b""
    make_dataset(workspace / "dataset" / "custom-made", made_episodes(15))
    (home / "token").parent.mkdir()
    (home / "token").write_text(SECRET)  # as `hf auth login` leaves it: the one place where it may be

    with LoopbackHub(tmp_path / "server") as hub:
        environment = {**os.environ, **hub.environment(home), "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
        environment |= {"HF_HUB_VERBOSITY": "debug", "LAWM_ROOT": str(workspace)}
        del environment["HF_TOKEN"]

        def run(module: str, *arguments: str, expected: int = 0) -> None:
            nonlocal said
            command = [sys.executable, "-m", module, *arguments]
            with (
                tempfile.TemporaryFile() as output,
                subprocess.Popen(
                    command, env=environment, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT
                ) as process,
            ):
                seen: set[bytes] = set()
                while process.poll() is None:
                    seen.add(seen_by_others(process))
                    time.sleep(0.02)
                output.seek(0)
                told = output.read()
            assert process.returncode == expected, told.decode()[-2000:]
            said += told + b"".join(seen)

        hub.fault = lambda request: as_json({"error": "no"}, 400) if "/commit/" in request.path else None
        run("lawm_data.cli", "push", "--private", expected=2)
        hub.fault = None
        run("lawm_data.cli", "push", "--private")
        run("lawm_train.cli", "--hub-dataset", REPO, *TRAIN)
        run("lawm_train.cli", "push", str(workspace / "runs" / "custom-made-medium-replay-bc-s0"))
    assert b"push" in said and REPO.encode() in said and b"error: " in said
    assert SECRET.encode() not in said
    searched = [path for path in tmp_path.rglob("*") if path.is_file() and path != home / "token"]
    assert any(home in path.parents for path in searched) and any("runs" in path.parts for path in searched)
    assert [path for path in searched if SECRET.encode() in path.read_bytes()] == []
