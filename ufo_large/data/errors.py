"""What ends a run because of its data."""


class DataError(ValueError):
    """Data that cannot be had or used; the message names it and the remedy, so no traceback is needed.

    Workers return it instead of raising, because torch's DataLoader would bury the message in theirs.
    """
