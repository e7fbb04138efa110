"""The one error that users are meant to see."""


class UserError(Exception):
    """Something the user can mend. One line: the file, row or key, what was expected, what to do.

    The commands print it after `error: ` and exit with code 2; any other exception is a bug.
    """
