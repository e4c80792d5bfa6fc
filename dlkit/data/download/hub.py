"""Files of repositories on the Hugging Face hub ($HF_ENDPOINT), by the package huggingface_hub.

A file that is in the hub's own cache is used from there; else it is fetched into dlkit's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from dlkit import cache
from dlkit.data.download.download import digest
from dlkit.data.download.http import UnreachableError
from dlkit.errors import ModelFileError, VerificationError
from dlkit.export_metadata import need
from dlkit.privacy import offline

SHA256_DIGITS = 64


def fetch(repository: str, file: str, log: Callable[[str], None]) -> Path:
    """A file of a repository, compared with the SHA-256 that the hub states for large files.

    Raises:
        UsageError: the package is missing. ModelFileError: there is no such repository or file.
        VerificationError: it is damaged. UnreachableError: it cannot be fetched.
    """
    need(("huggingface_hub",), f"fetching {repository}", "hf")
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError

    folder = cache.home() / "hub"
    for known in (None, folder):
        found = huggingface_hub.try_to_load_from_cache(repository, file, cache_dir=known)
        if isinstance(found, str):
            return _verified(Path(found))
    advice = f"Put {file} where you can name it, as in --weights FILE, or start from scratch with --weights none."
    if offline():
        raise UnreachableError(f"{repository} is not in the cache, and DLKIT_OFFLINE forbids the network. {advice}")
    log(f"fetching {file} of {repository} from the Hugging Face hub")
    try:
        return _verified(
            Path(
                huggingface_hub.hf_hub_download(
                    repository, file, cache_dir=cache.writable(folder), endpoint=os.environ.get("HF_ENDPOINT")
                )
            )
        )
    except (RepositoryNotFoundError, EntryNotFoundError) as error:
        if getattr(error, "response", None) is None:  # a cached answer of a hub that cannot be reached now
            raise UnreachableError(f"{repository}: the Hugging Face hub cannot be reached. {advice}") from error
        raise ModelFileError(f"{repository}: the hub has no such file {file} that you may read. {advice}") from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UnreachableError(f"{repository}: the Hugging Face hub cannot be reached: {reason}. {advice}") from error


def _verified(path: Path) -> Path:
    """The file, whose name in the cache is the SHA-256 that the hub stated.

    Raises:
        VerificationError: it has another.
    """
    stated = path.resolve().name
    if len(stated) == SHA256_DIGITS and digest(path) != stated:
        raise VerificationError(f"{path} is damaged: its SHA-256 is not {stated}. Remove it to fetch it again.")
    return path
