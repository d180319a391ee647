"""Finds the files of a version, reads the settings, and opens the engine that they name."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from proofloop.errors import ConfigError
from proofloop.models import verify_version, version_folder
from proofloop.settings import load_settings as load_places
from proofloop.store import LocalStore, open_store
from proofloop_serving.asks import ServingEngine
from proofloop_serving.settings import TransformersSettings, load_settings

MODEL_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")  # never a pickle, never code


def open_serving(version: str, settings_name: str) -> ServingEngine:
    """The engine for a version, loaded. Raises ConfigError, StoreError, EngineError."""
    settings = load_settings(settings_name)
    folder = _model_folder(version)
    if isinstance(settings, TransformersSettings):
        from proofloop_serving.transformers_engine import TransformersEngine

        return TransformersEngine(folder, version, settings)
    from proofloop_serving.tensorrt_engine import TensorRTEngine

    return TensorRTEngine(folder, settings)


def _model_folder(version: str) -> Path:
    """A version of a run from the store, an installed model, a folder, or a name on the Hugging Face hub."""
    places = load_places()
    store = open_store(places)
    if version.startswith("runs/") and isinstance(store, LocalStore):
        verify_version(store, version)  # it is read where it lies; what comes from S3 is verified as it is fetched
    folder = version_folder(store, places.cache, version)
    if folder.is_dir() or version.count("/") != 1:
        return folder
    try:
        return Path(snapshot_download(version, allow_patterns=list(MODEL_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(f"{version!r} is no folder here, and the hub does not give it: {error}") from error
