"""Where the library keeps what it fetched."""

from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name


def cache_folder() -> Path:
    """Where checkpoints are kept."""
    return Path(constants.HF_HUB_CACHE)


def snapshot(repo: str, commit: str) -> Path:
    """The folder of a commit in the cache, whether or not it is there."""
    return repository(repo) / "snapshots" / commit


def repository(repo: str) -> Path:
    """The folder of a repository in the cache, whether or not it is there."""
    return Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="model"))


def lock_of(blob: Path) -> Path:
    """The lock that the library itself takes before it downloads that blob."""
    folder = Path(constants.HF_HUB_CACHE, ".locks", blob.parents[1].name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{blob.name}.lock"
