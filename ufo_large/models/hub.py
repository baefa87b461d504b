"""Public weights, fetched and kept by huggingface_hub's own download code.

The cache (HF_HOME), endpoint (HF_ENDPOINT), token (HF_TOKEN) and offline mode (HF_HUB_OFFLINE) are its own.
"""

import contextlib
import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HTTPError,  # of the client that this release of huggingface_hub has
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ufo_large.models.dense_values import INDEX, parts_of
from ufo_large.models.hub_names import HubName, near
from ufo_large.models.weight_cards import CARD, PIXELS, WEIGHTS


@dataclass(frozen=True, slots=True)
class Fetched:
    """Weights in the cache: their file (the index, where they are in parts) and what identifies them."""

    path: Path
    repo: str
    revision: str
    sha256: dict[str, str]

    def __str__(self) -> str:
        sums = ", ".join(f"{name} sha256 {value}" for name, value in self.sha256.items())
        return f"{self.repo} at revision {self.revision}: {sums}"


def fetch(name: HubName) -> Fetched:
    """Return the weights of a repository, from the cache or downloaded into it, with a progress bar.

    A file takes its place in the cache only when all of it is there; a file that is not what its checksum
    says is refused. Raises ValueError with the remedy where there is no such repository or revision, no
    access, no network, or no weights in it.
    """
    path, revision = _first_of(name, WEIGHTS)
    files = [path]
    if path.name.endswith(INDEX):
        files = [_first_of(replace(name, revision=revision), (part,))[0] for part in parts_of(path)]
    for described in (CARD, PIXELS):
        with contextlib.suppress(EntryNotFoundError):  # not every repository describes its model
            hf_hub_download(name.repo, described, revision=revision)
    return Fetched(path, name.repo, revision, {file.name: _checked_sha256(file) for file in files})


def locate(name: HubName) -> Path:
    """Return the path of weights that `fetch` has brought; a pinned revision needs no network."""
    return _first_of(name, WEIGHTS)[0]


def _first_of(name: HubName, files: tuple[str, ...]) -> tuple[Path, str]:
    """Return the first file that the repository has, and the commit it is of."""
    offline: list[LocalEntryNotFoundError] = []
    for file in files:
        try:
            found = hf_hub_download(name.repo, file, revision=name.revision, local_files_only=bool(offline))
            return Path(found), Path(found).parent.name
        except GatedRepoError as error:
            raise ValueError(
                f"pretrained={name}: its owner gives access on request; ask on {constants.ENDPOINT}/"
                f"{name.repo}, then run `hf auth login` or set HF_TOKEN"
            ) from error
        except RepositoryNotFoundError as error:
            raise ValueError(
                f"pretrained={name}: no such file, and no such repository on {constants.ENDPOINT}."
                f"{near(name.repo)} A private one needs `hf auth login` or HF_TOKEN"
            ) from error
        except RevisionNotFoundError as error:
            raise ValueError(
                f"pretrained={name}: {name.repo} has no revision {name.revision!r}; leave "
                f"@{name.revision} out for the newest"
            ) from error
        except LocalEntryNotFoundError as error:
            offline.append(error)
        except EntryNotFoundError:
            continue
        except (HTTPError, OSError) as error:  # what the network or the disk says, half a download included
            raise ValueError(
                f"pretrained={name}: {file} could not be fetched ({error}); start again, or "
                f"{_bring(name, file)}"
            ) from error
    if offline:
        raise ValueError(
            f"pretrained={name} is no file or folder here, its {files[0]} is not in the cache "
            f"{constants.HF_HUB_CACHE}, and {constants.ENDPOINT} cannot be reached "
            f"({offline[0].__cause__ or offline[0]}); {_bring(name, files[0])}.{near(name.repo)}"
        ) from offline[0]
    raise ValueError(f"pretrained={name}: {name.repo} has none of {', '.join(files)}; give a file of weights")


def _bring(name: HubName, file: str) -> str:
    revision = "" if name.revision is None else f" --revision {name.revision}"
    return (
        f"run `hf download {name.repo} {file}{revision}` where there is a network and copy its cache here "
        "(HF_HOME says where), or give the file itself with --set pretrained=FILE"
    )


def _checked_sha256(path: Path) -> str:
    """Return the file's checksum. ValueError where the hub's is another.

    That is the name of what the cache's entry points to; from there it may go on to a store in which files
    have the names of another checksum.
    """
    named = path.readlink().name if path.is_symlink() else path.name
    blob = path.resolve()
    with blob.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if re.fullmatch(r"[0-9a-f]{64}", named) and named != found:
        raise ValueError(
            f"{blob} is damaged: its sha256 is {found}, not {named}; remove it, and the next start downloads "
            "it again"
        )
    return found
