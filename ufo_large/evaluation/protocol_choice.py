"""Which protocol counts a data set where nobody says."""

from collections.abc import Iterable

from ufo_large.kinds import kind_of
from ufo_large.structures import TaskInfo


def protocol_for(tasks: Iterable[TaskInfo]) -> str:
    """Return `official` where a task has the contest's 19 classes of streets, else `standard`.

    Where no task is segmentation both count the same.
    """
    return "official" if any(kind_of(task).has_contest_classes(task) for task in tasks) else "standard"


def reason(protocol: str) -> str:
    """Say why `protocol_for` chose it, and how to have the other."""
    if protocol == "official":
        return "protocol official, since the data has the contest's 19 classes; or give --protocol standard"
    return "protocol standard, since the data is not the contest's; or give --protocol official"
