"""Fetch a hub model's files before vLLM starts, so that a download of hours does not count as a slow start."""

import logging
import time
from pathlib import Path

from huggingface_hub import HfApi, RepoFile, hf_hub_download, try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_OFFLINE

from tasks.errors import EngineError

_log = logging.getLogger("labelstill")

_REPORT_SECONDS = 15.0
_OTHER_FORMATS = (".bin", ".pt", ".pth", ".gguf", ".onnx", ".msgpack", ".h5")
"""Weights that vLLM does not read where there are safetensors."""


def fetch_weights(model: str, revision: str | None) -> None:
    """Download the files of a hub model that are not in the local cache, and log the progress.

    Does nothing for a folder or in offline mode. If the hub does not list the files, vLLM says later what is wrong.
    Raises EngineError when a file cannot be fetched.
    """
    if HF_HUB_OFFLINE or Path(model).expanduser().is_dir():
        return
    missing = _list_missing_files(model, revision)
    total = sum(file.size for file in missing)
    done = reported = 0.0
    for file in missing:
        if time.monotonic() - reported >= _REPORT_SECONDS:
            reported = time.monotonic()
            _log.info("fetching %s: %.1f of %.1f GB", model, done / 1e9, total / 1e9)
        try:
            hf_hub_download(model, file.path, revision=revision)
        except Exception as error:  # of the network, the hub or the disk
            raise EngineError(
                f"cannot fetch {file.path} of {model}: {error}; check the network and the disk space of HF_HOME, then "
                "run again (what is fetched is kept)"
            ) from error
        done += file.size


def _list_missing_files(model: str, revision: str | None) -> list[RepoFile]:
    try:
        api = HfApi()
        commit = api.model_info(model, revision=revision).sha
        entries = list(api.list_repo_tree(model, recursive=True, revision=commit))
    except Exception as error:
        _log.info("cannot list the files of %s on the hub: %s", model, error)
        return []
    files = [entry for entry in entries if isinstance(entry, RepoFile)]
    if any(file.path.endswith(".safetensors") for file in files):
        files = [file for file in files if not file.path.endswith(_OTHER_FORMATS)]
    return [file for file in files if not isinstance(try_to_load_from_cache(model, file.path, revision=commit), str)]
