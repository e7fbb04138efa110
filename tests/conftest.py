"""What holds for every test: its own working folder and Hub cache, one thread, no network, no screen."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from typing import Any

import pytest

_HOME = tempfile.TemporaryDirectory(prefix="lawm-tests-")

for _name in list(os.environ):  # what this machine is set to decides nothing
    if _name.startswith(("LAWM_", "HF_", "HUGGING_FACE_")) or _name.lower().endswith("_proxy"):
        del os.environ[_name]
# read when torch, matplotlib, dm_control and huggingface_hub are first imported
os.environ |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "MUJOCO_GL": "disable", "HF_HOME": _HOME.name}
# a shell starts what runs in its background with Ctrl-C ignored, and that is inherited
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The default workspace is ./lawm: each test begins in an empty folder."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection beyond this machine is an error."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError(f"a test tried to reach {address}; tests use the loopback Hub")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small dataset folder, opened as training does."""
    from made_dataset import made_episodes, make_dataset

    from lawm_train import stream

    folder = tmp_path_factory.mktemp("data") / "made"
    make_dataset(folder, made_episodes(15))
    return stream.open_dataset(str(folder))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew")
