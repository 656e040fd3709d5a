"""Dictionaries in Hugging Face hub repositories: `hub:org/name[@revision][/folder or file]`.

A repository is listed first, and single files are downloaded into the hub's own cache when a reader asks for them.
huggingface_hub is imported on first use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from monitor.dictionary.formats.files import WEIGHTS
from monitor.dictionary.formats.location import OWN, STATISTICS, Location, local_folder
from monitor.errors import DictionaryError

PREFIX = "hub:"
_SOURCE = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w.+-]+))?(?:/(?P<inside>[^@]+?))?/?"
)
_SEVERAL = 6


@dataclass(frozen=True)
class HubFolder:
    """A folder of a repository at one commit, or one file in it."""

    label: str
    repo: str
    revision: str
    """The commit that was listed, and from which files are downloaded."""
    folder: str
    """Empty for the repository itself."""
    names: frozenset[str]
    everything: frozenset[str]
    """Paths of all files of the repository."""
    chosen: str | None = None

    @property
    def address(self) -> str:
        """See `Location`."""
        return "/".join(part for part in (self.repo, self.folder, self.chosen) if part)

    @property
    def home(self) -> Path:
        """The folder for statistics, cards and labels.

        Where the repository has statistics, they are downloaded with the files beside them, and this is their folder
        in the cache. Else it is a folder under `HF_HOME`, named after the repository: nothing is added to the cache.
        """
        from huggingface_hub.constants import HF_HOME

        own = [name for name in OWN if name in self.names]
        if STATISTICS in own and self.chosen is None:
            for name in own:
                self.path(name)
            return self.path(STATISTICS).parent
        return (
            Path(HF_HOME) / "sae-monitor" / self.repo.replace("/", "--") / self.folder / (self.chosen or "")
        )

    def path(self, name: str) -> Path:
        """See `Location`. The file is downloaded unless it is in the cache."""
        if name not in self.names:
            raise DictionaryError(f"{self.label} has no {name}, and the dictionary cannot be read without it")
        return self._fetched(f"{self.folder}/{name}" if self.folder else name)

    def parent_file(self, name: str) -> Path | None:
        """See `Location`."""
        upper = self.folder.rpartition("/")[0]
        inside = f"{upper}/{name}" if upper else name
        return self._fetched(inside) if self.folder and inside in self.everything else None

    def _fetched(self, inside: str) -> Path:
        from huggingface_hub import hf_hub_download

        with _explained(self.label, self.repo):
            return Path(hf_hub_download(self.repo, inside, revision=self.revision))


def find_location(source: str | Path) -> Location:
    """The location that `source` names: an existing path, else a repository on the hub.

    Raises DictionaryError where no such path exists and `source` names no repository, or the hub does not have it.
    """
    text = str(source)
    path = Path(text).expanduser()
    if not text.startswith(PREFIX) and path.exists():
        return local_folder(path)
    match = _SOURCE.fullmatch(text.removeprefix(PREFIX))
    if match is None:
        expected = f"write {PREFIX}ORG/NAME[@REVISION][/FOLDER], such as {PREFIX}google/gemma-scope-2b-pt-res"
        what = f"{text!r} names no repository" if text.startswith(PREFIX) else f"{text} does not exist"
        raise DictionaryError(
            f"{what}; give a folder or a weights file of this machine, or of the Hugging Face hub: {expected}"
        )
    return _listed(text, match["repo"], match["revision"], match["inside"] or "")


def _listed(label: str, repo: str, revision: str | None, inside: str) -> HubFolder:
    with _explained(label, repo):
        commit, files = _online(repo, revision)
    if inside in files and inside.endswith(WEIGHTS):
        folder, _, chosen = inside.rpartition("/")
        return HubFolder(
            label, repo, commit, folder, frozenset(_inside(files, folder)), frozenset(files), chosen
        )
    names = frozenset(_inside(files, inside))
    if not names:
        raise DictionaryError(f"{label}: the repository {repo} has no {inside}; it has {_top(files)}")
    return HubFolder(label, repo, commit, inside, names, frozenset(files))


def _online(repo: str, revision: str | None) -> tuple[str, list[str]]:
    """Commit and files of a repository; those in the cache where the hub cannot be reached."""
    from huggingface_hub import HfApi, errors

    try:
        info = HfApi().model_info(repo, revision=revision, timeout=30)
    except (errors.HfHubHTTPError, errors.HFValidationError):
        raise
    except (OSError, _unreachable()):
        if (cached := _cached(repo, revision)) is None:
            raise
        return cached
    return info.sha or revision or "main", [sibling.rfilename for sibling in info.siblings or ()]


def _cached(repo: str, revision: str | None) -> tuple[str, list[str]] | None:
    """Commit and files of this revision in the hub's cache; with no revision, of the only one there. Else None."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    root = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")
    ref = root / "refs" / (revision or "main")
    commit = ref.read_text("utf-8").strip() if ref.is_file() else revision
    folders = [path for path in (root / "snapshots").glob(commit or "*") if path.is_dir()]
    if len(folders) != 1:
        return None
    found = [path for path in folders[0].rglob("*") if path.is_file()]
    return folders[0].name, [path.relative_to(folders[0]).as_posix() for path in found]


def _inside(files: list[str], folder: str) -> Iterator[str]:
    start = f"{folder}/" if folder else ""
    return (name.removeprefix(start) for name in files if name.startswith(start))


def _top(files: list[str]) -> str:
    names = sorted({PurePosixPath(name).parts[0] for name in files})
    return ", ".join(names[:_SEVERAL]) + (
        f" and {len(names) - _SEVERAL} more" if len(names) > _SEVERAL else ""
    )


@contextmanager
def _explained(label: str, repo: str) -> Iterator[None]:
    """Turn the hub's errors into DictionaryErrors that say what to do."""
    from huggingface_hub import errors

    context = (
        ""
        if label.startswith(PREFIX)
        else f"{label} is not a folder or file on this machine, and as a hub repository: "
    )
    try:
        yield
    except errors.GatedRepoError as error:
        raise DictionaryError(
            f"{context}{repo} is gated: accept its terms on its page, and log in with `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DictionaryError(
            f"{context}there is no repository {repo} on the hub, or it is private: log in with `hf auth login`"
        ) from error
    except (errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        raise DictionaryError(f"{context}{repo} does not have it: {_first(error)}") from error
    except errors.HFValidationError as error:
        raise DictionaryError(f"{context}{_first(error)}") from error
    except (OSError, _unreachable()) as error:
        raise DictionaryError(
            f"{context}{repo} cannot be fetched, the hub cannot be reached ({_first(error)}). Offline, download it "
            "where there is a network (`hf download`) and give the folder"
        ) from error


def _unreachable() -> type[Exception]:
    """The class of errors that huggingface_hub's HTTP client raises where no answer comes.

    The client has changed between versions, so the class is taken from the bases of huggingface_hub's own error.
    """
    from huggingface_hub import errors

    found: type[Exception] = errors.HfHubHTTPError.__mro__[1]
    return found


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
