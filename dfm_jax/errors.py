"""The error that a user can mend."""


class UserError(Exception):
    """One clear message: what is wrong, where, and how to mend it. Command lines print it without a traceback."""
