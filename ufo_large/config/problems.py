"""Collect every problem of the user's input before stopping, so one run lists them all."""


class Problems:
    """A list of messages that turns into one ValueError.

    Each message names the file, the line or value, and the remedy.
    """

    def __init__(self, subject: str):
        self.subject = subject
        self.messages: list[str] = []

    def add(self, message: str) -> None:
        self.messages.append(message)

    def raise_if_any(self, show: int = 20) -> None:
        """Raise ValueError listing up to `show` problems and the count of the rest."""
        if not self.messages:
            return
        lines = [f"  {i}. {m}" for i, m in enumerate(self.messages[:show], 1)]
        if len(self.messages) > show:
            lines.append(f"  ... and {len(self.messages) - show} more")
        plural = "problem" if len(self.messages) == 1 else "problems"
        raise ValueError(f"{self.subject}: {len(self.messages)} {plural}\n" + "\n".join(lines))
