"""The one error that users are meant to see."""

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


class Missing(UserError):
    """A file of a dataset or policy is not there at all, as what was not published."""
