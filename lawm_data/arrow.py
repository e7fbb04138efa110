"""Record batches of an Arrow IPC file that somebody else may have made to do harm.

The file is read message by message from its start, never through its footer: messages cannot overlap, so what is read
is no larger than the file. Compressed bodies are refused, as a few bytes could unpack to all the memory there is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from lawm_data.errors import UserError, reason

MAGIC = b"ARROW1"
_START = 8  # the magic, padded
CURE = "fetch it again, or run `lawm-data split` again"


def batches(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The batches of a file that must have this schema, fully validated, as views of the mapped file.

    UserError names `path`.
    """
    try:
        with pa.memory_map(str(path)) as source:
            _check_frame(source, path)
            source.seek(_START)
            if not pa.ipc.read_schema(source).equals(schema):
                raise UserError(f"{path}: its columns are not those of this kind of shard; {CURE}")
            for message in _messages(source):
                if message.type != "record batch" or _is_compressed(message.metadata):
                    raise UserError(f"{path}: a {message.type} that is not plain record batches; {CURE}")
                batch = pa.ipc.read_record_batch(message, schema)
                batch.validate(full=True)
                yield batch
    except (pa.ArrowException, OSError, struct.error) as error:
        raise UserError(f"{path}: not readable as an Arrow file ({reason(error)}); {CURE}") from error


def _check_frame(source: pa.MemoryMappedFile, path: Path) -> None:
    """The magic at both ends: a file cut off between two messages would else look whole."""
    size = source.size()
    ends = source.read_at(len(MAGIC), 0), source.read_at(len(MAGIC), max(0, size - len(MAGIC)))
    if ends != (MAGIC, MAGIC) or size <= _START:
        raise UserError(f"{path}: not readable as an Arrow file (it does not begin and end as one); {CURE}")


def _messages(source: pa.MemoryMappedFile) -> Iterator[pa.Message]:
    while True:
        try:
            yield pa.ipc.read_message(source)
        except EOFError:
            return


def _is_compressed(metadata: pa.Buffer) -> bool:
    """Whether a RecordBatch message has the field `compression` (Arrow's Message.fbs), which pyarrow does not tell."""
    data = metadata.to_pybytes()

    def field(table: int, number: int) -> int:
        """Where a field of a flatbuffers table lies, 0 if it is absent."""
        vtable = table - struct.unpack_from("<i", data, table)[0]
        slot = 4 + 2 * number
        inside = struct.unpack_from("<H", data, vtable)[0] > slot
        offset = struct.unpack_from("<H", data, vtable + slot)[0] if inside else 0
        return table + offset if offset else 0

    def target(place: int) -> int:
        return place + struct.unpack_from("<I", data, place)[0]

    header = field(target(0), 2)  # Message.header
    return header == 0 or field(target(header), 3) != 0  # RecordBatch.compression
