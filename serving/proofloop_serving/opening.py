"""Opens a version for serving: finds its files, reads the settings, and loads the engine that they
name.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from proofloop.config.settings import load_settings as load_places
from proofloop.engine.info import is_adapter
from proofloop.errors import ConfigError
from proofloop.schema import keys
from proofloop.store import LocalStore, open_store
from proofloop.store.model_folders import verify_version, version_folder
from proofloop_serving.calls import ServingEngine
from proofloop_serving.settings import TransformersSettings, load_settings

MODEL_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")  # no pickles and no code


def open_serving(version: str, settings_name: str) -> ServingEngine:
    """Load the engine for a version. Raises ConfigError, StoreError, EngineError."""
    settings = load_settings(settings_name)
    folder = _model_folder(version)
    if isinstance(settings, TransformersSettings):
        from proofloop_serving.transformers_engine import TransformersEngine

        return TransformersEngine(folder, version, settings)
    if is_adapter(folder):
        raise ConfigError(
            f"{version!r} is an adapter, which engine tensorrt_llm does not load",
            "serve it by engine transformers in the settings file, or train all weights",
        )
    from proofloop_serving.tensorrt_engine import TensorRTEngine

    return TensorRTEngine(folder, settings)


def _model_folder(version: str) -> Path:
    """The folder of a version: a run's version in the store, an installed model, a folder, or a
    model on the hub.
    """
    places = load_places()
    store = open_store(places)
    if keys.is_version(version) and isinstance(store, LocalStore):
        # a local store's files are used in place; files from S3 are verified when copied
        verify_version(store, version)
    folder = version_folder(store, places.cache, version)
    if folder.is_dir() or version.count("/") != 1:
        return folder
    try:
        return Path(snapshot_download(version, allow_patterns=list(MODEL_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(
            f"{version!r} is not a folder here and cannot be loaded from the hub: {error}"
        ) from error
