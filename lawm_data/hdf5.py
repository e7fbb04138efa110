"""Reading HDF5, where damage is one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import h5py

from lawm_data.errors import UserError

CACHE_BYTES = 64_000_000  # a chunk of the store


@contextmanager
def opened(file: Path | IO[bytes], where: str) -> Iterator[h5py.File]:
    """Open HDF5 for reading; what is missing, empty, truncated or corrupt becomes a UserError that names `where`.

    Do nothing but read in the block.
    """
    if isinstance(file, Path) and file.is_dir():
        raise UserError(f"{where}: a folder, expected an HDF5 file")
    try:
        with h5py.File(file, "r", rdcc_nbytes=CACHE_BYTES, rdcc_nslots=10_007) as opened_file:
            yield opened_file
    except FileNotFoundError:
        raise UserError(f"{where}: no such file; check the path") from None
    except PermissionError:
        raise UserError(f"{where}: may not be read; change its permissions") from None
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:  # h5py raises all five on damaged bytes
        reason = " ".join(str(error).split())
        raise UserError(f"{where}: not readable as HDF5 ({reason}); copy or download it again") from error
