"""Take credentials out of what is written down: data addresses, commands and messages that hold them."""

import re

NAMES = r"[\w-]*(?:token|secret|password|passwd|api[_-]?key|access[_-]?key|signature)[\w-]*"
ADDRESS = re.compile(r"://|\bpipe:")
RULES = (
    (re.compile(r"(?<=://)[^\s'\"/]+@"), "***@"),
    (re.compile(r"(?<=://)[^\s'\"/?@:]+:(?!\d+/)[^\s'\"?]*@"), "***@"),  # an unquoted / in the password
    (re.compile(r"(?<=[?&])([\w.%~+-]+=)[^\s'\"&;)]*"), r"\1***"),
    (re.compile(r"(authorization:\s*)[^'\"\n]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"(\s(?:-u|--user)\s+)[^\s'\":]+:[^\s'\"]+"), r"\1***"),
    (re.compile(rf"(--?{NAMES}\s+|{NAMES}\s*[=:]\s*)[^\s'\"&;)]+", re.IGNORECASE), r"\1***"),
)


def without_credentials(text: str) -> str:
    """Return `text` with *** for what gives rights: users, passwords, values of a query, tokens of a pipe.

    Text without an address or a pipe stays as it is. Whoever has the rights gives the whole address again.
    """
    if ADDRESS.search(text):
        for pattern, shown in RULES:
            text = pattern.sub(shown, text)
    return text
