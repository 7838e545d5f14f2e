"""Weights and configurations in files of every known form. Knows no network."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rtdetrv2_cli.errors import CheckpointError, OutputError
from rtdetrv2_cli.model.config import RtDetrV2Config
from rtdetrv2_cli.model.keys import State, transformers_to_official
from rtdetrv2_cli.model.pickles import read_pickle

FOLDER_STEMS = ("model", "pytorch_model")
"""What weight files are called in a transformers folder, beside their config.json."""


def read_weights(files: Iterable[Path]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights under official names, in float32, and a safetensors file's metadata.

    Raises:
        CheckpointError: a file is damaged, hostile, or holds no weights.
    """
    metadata: dict[str, str] = {}
    state: dict[str, Tensor] = {}
    for file in files:
        state |= read_tensors(file, metadata)
    try:
        named = _official_names(state)
    except (RuntimeError, IndexError) as error:  # parts that do not go together
        raise CheckpointError(f"the shapes of the weights make no network: {error}") from error
    return {
        key: tensor.detach().float() if tensor.is_floating_point() else tensor
        for key, tensor in named.items()
    }, metadata


def read_tensors(file: Path, metadata: dict[str, str] | None = None) -> dict[str, Tensor]:
    """The weights in one file, under the names they have there.

    Args:
        file: `.safetensors`, or a pickle.
        metadata: Where to put what a safetensors file says beside its weights.

    Raises:
        CheckpointError: It is damaged, hostile, or holds no weights.
    """
    if file.suffix == ".safetensors":
        state = _read_safetensors(file, {} if metadata is None else metadata)
    else:
        state = _weights_in(read_pickle(file), file)
    for key, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_complex():
            raise CheckpointError(f"{key} is no plain tensor of real numbers")
    return state


def _read_safetensors(file: Path, metadata: dict[str, str]) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as content:
            metadata |= content.metadata() or {}
            return {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged or no safetensors file: {error}") from error


def _weights_in(content: object, file: Path) -> dict[str, Tensor]:
    """The averaged weights of a training checkpoint, else its weights, else a bare state dict."""
    for path in (("ema", "module"), ("model",), ("state_dict",), ()):
        inner = content
        for key in path:
            inner = dict.get(inner, key) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            items = dict.items(inner)  # not what a hostile file may have put in the method's place
            state = {str(key): value for key, value in items if isinstance(value, Tensor)}
            if state:
                return state
    raise CheckpointError(
        f"{file} holds no weights: neither ema.module nor model, and it is no state dict itself"
    )


def _official_names(state: State) -> Mapping[str, Tensor]:
    """Whatever the layout, and whichever wrapper's prefix all names have."""
    for marker, translate in (
        ("decoder.enc_output.proj.weight", dict),
        ("model.enc_output.0.weight", transformers_to_official),
    ):
        prefix = next((key.removesuffix(marker) for key in state if key.endswith(marker)), None)
        if prefix is not None:
            return translate({key.removeprefix(prefix): state[key] for key in state})
    return state


def read_config(path: Path, own: Mapping[str, Any]) -> RtDetrV2Config | None:
    """What the file or the folder says; None where only the weights can tell.

    Args:
        path: A weight file or a transformers folder.
        own: What our own form says beside the weights.

    Raises:
        CheckpointError: it is damaged, or describes no network known here.
    """
    if isinstance(own.get("config"), dict):
        return RtDetrV2Config.from_dict(own["config"])
    if path.is_file() and path.stem not in FOLDER_STEMS:
        return None
    folder = path if path.is_dir() else path.parent
    values = _json_in(folder / "config.json")
    if values is None:
        return None
    size = (_json_in(folder / "preprocessor_config.json") or {}).get("size")
    if "image_size" not in values and isinstance(size, dict) and {"height", "width"} <= size.keys():
        values["image_size"] = [size["height"], size["width"]]
    return RtDetrV2Config.from_dict(values)


def _json_in(file: Path) -> dict[str, Any] | None:
    return parse_json(file.read_text(encoding="utf-8"), file) if file.is_file() else None


def parse_json(text: str, origin: Path) -> dict[str, Any]:
    """A JSON object; `origin` is named where it is none.

    Raises:
        CheckpointError: it is none.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"the configuration of {origin} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"the configuration of {origin} is damaged: it is no JSON object")
    return values


def write_weights(path: Path, state: State, metadata: Mapping[str, str]) -> None:
    """A safetensors file, completely or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    tensors = {key: tensor.contiguous() for key, tensor in state.items()}
    with _complete(path) as part:
        save_file(tensors, part, metadata=dict(metadata))


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """A JSON file, completely or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with _complete(path) as part:
        part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _complete(path: Path) -> Iterator[Path]:
    """Gives where to write; that becomes `path` only if all went well."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        mode = part.stat().st_mode  # as the umask wants it: safetensors would hide it from others
        yield part
        part.chmod(mode)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error}") from error
