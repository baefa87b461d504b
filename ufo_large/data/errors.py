"""What ends a run because of its data."""

from ufo_large.config import without_credentials


class DataError(ValueError):
    """Data that cannot be had or used; the message names it and the remedy, so no traceback is needed.

    Workers return it instead of raising, because torch's DataLoader would bury the message in theirs. An
    address in the message loses its credentials.
    """

    def __init__(self, message: str):
        super().__init__(without_credentials(message))
