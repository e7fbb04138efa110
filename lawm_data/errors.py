"""The one error that users are meant to see."""

from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 600  # characters of a message


class UserError(Exception):
    """Something the user can mend. One line: the file, row or key, what was expected, what to do.

    The commands print it after `error: ` and exit with code 2; any other exception is a bug. Names that somebody else
    chose may stand in it: what is not printable is replaced, what is endless is cut.
    """

    def __str__(self) -> str:
        text = super().__str__()
        shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
        return "".join(character if character.isprintable() else "?" for character in shown)


def reason(error: BaseException | None) -> str:
    """The first line of what an error of another library says; the name of its class where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn what numpy and torch raise where memory is short into a UserError; torch is not imported for it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        named = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
        if not named and not isinstance(error, MemoryError):
            raise
        cure = "free some, or train with fewer --seeds at a time, a smaller batch or smaller models"
        raise UserError(f"not enough memory ({reason(error)}); {cure}") from error


class Missing(UserError):
    """A file that belongs to a dataset or policy does not exist, for instance because it was not published."""
