"""Weight files: read in every known form, checked, and written in ours and in transformers'.

Our own form is one safetensors file with the official names and, in its metadata, everything else
that a model needs. Knows no picture and no interface.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtdetrv2_cli import hub
from rtdetrv2_cli.errors import CheckpointError
from rtdetrv2_cli.model.config import RtDetrV2Config, untransformable
from rtdetrv2_cli.model.files import (
    FOLDER_STEMS,
    parse_json,
    read_config,
    read_weights,
    write_json,
    write_weights,
)
from rtdetrv2_cli.model.info import ModelInfo
from rtdetrv2_cli.model.keys import State, official_to_transformers, transformers_to_official
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.model.shapes import config_from_shapes, config_of_variant
from rtdetrv2_cli.types import Size

__all__ = [
    "LoadedModel",
    "ModelInfo",
    "load",
    "official_to_transformers",
    "relabel",
    "save",
    "save_pretrained",
    "transformers_to_official",
]

_OWN = "rtdetrv2"
"""Key of a safetensors file's metadata under which ours is, as JSON.

It is the only key: safetensors writes several in an order that changes from run to run, and the
same model shall give the same bytes.
"""
_VERSION = 1
"""Of our own form."""
_NEEDLESS = ("num_batches_tracked", "num_points_scale", "decoder.anchors", "decoder.valid_mask")
"""Ends of the names that a file may lack or have: they are made anew."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to detect, and what its file says of it."""

    model: RtDetrV2ForObjectDetection
    """In float32, evaluating."""
    info: ModelInfo


def load(
    name_or_path: str | PathLike[str], *, variant: str | None = None, offline: bool = False
) -> LoadedModel:
    """Reads a model by name, path, URL or `hf://` address; downloads a name's weights if need be.

    Files are official `.pth` (also bare state dicts), `.safetensors` of any layout, transformers
    folders, and what `save` wrote. Half-precision weights become float32.

    Args:
        name_or_path: As `hub.resolve` understands it.
        variant: Published variant to read the file as, where its shapes and name leave it open.
        offline: Never download.

    Raises:
        ModelError: there is no such model, it cannot be fetched, or its file is damaged, hostile,
            not the one it was, or does not fit; the message names the first keys that do not.
    """
    path = hub.resolve(name_or_path, offline=offline)
    if path.suffix == hub.GRAPH_SUFFIX:
        raise CheckpointError(
            f"{path} is a graph of OpenVINO's, from which no network can be made: give the model "
            "that it was made of"
        )
    files = hub.weight_files(path)
    if not files:
        raise CheckpointError(
            f"{path} holds neither model.safetensors nor pytorch_model.bin, or not all their parts"
        )
    found = hub.describe(path)
    expected = hub.known_digest(path)
    if expected is not None and found.sha256 != expected:
        raise CheckpointError(
            f"{path} is damaged or not the file it was: its SHA-256 is {found.sha256}, not "
            f"{expected}; delete it and pull the model again"
        )
    state, metadata = read_weights(files)
    own = _own_metadata(metadata, path)
    config = read_config(path, own) or config_from_shapes(state, _title(path))
    if variant is not None:
        config = config_of_variant(variant, config)
    info = ModelInfo(
        own.get("name") or hub.canonical_name(fspath(name_or_path)) or _title(path),
        found.sha256,
        own.get("license") or found.license,
        own.get("confidence"),
    )
    return LoadedModel(_build(config, state, path), info)


def relabel(
    model: RtDetrV2ForObjectDetection,
    *,
    labels: Sequence[str] | None = None,
    image_size: Size | None = None,
) -> None:
    """Gives a model other class names, or another input size to prefer.

    Raises:
        ValueError: there are not as many names as classes.
    """
    config = model.config
    if labels is not None:
        if len(labels) != config.num_labels:
            raise ValueError(f"{len(labels)} names for {config.num_labels} classes")
        config = replace(config, id2label=dict(enumerate(labels)))
    if image_size is not None:
        config = replace(config, image_size=tuple(image_size))
    model.config = model.model.config = config


def save(
    model: RtDetrV2ForObjectDetection,
    path: str | PathLike[str],
    info: ModelInfo,
    *,
    half: bool = False,
) -> None:
    """Writes our own form: one safetensors file that needs no other.

    Args:
        model: Any network.
        path: File to write, completely or not at all.
        info: Its name, licence and confidence go into the file.
        half: Store floating-point weights in float16, half the size.

    Raises:
        CheckpointError: a weight is beyond the range of float16, or the model is a deploy form.
        OutputError: the file cannot be written.
    """
    state = _whole(model)
    if half:
        state = {key: _halved(key, tensor) for key, tensor in state.items()}
    own = {
        "version": _VERSION,
        "name": info.name,
        "license": info.license,
        "confidence": info.confidence,
        "config": model.config.to_dict(),
    }
    write_weights(Path(path), state, {_OWN: json.dumps(own)})


def save_pretrained(model: RtDetrV2ForObjectDetection, folder: str | PathLike[str]) -> None:
    """Writes a folder that transformers reads as `RTDetrV2ForObjectDetection`.

    Decoder layers after the evaluated one are left out, as transformers evaluates the last.

    Raises:
        CheckpointError: transformers cannot express this network; the message names the fields.
            Or the model is a deploy form.
        OutputError: the folder cannot be written.
    """
    fields = untransformable(model.config)
    if model.config.evaluated_layers == 1:  # it ties each layer's heads to the first one's
        fields.append("decoder_layers")
    if fields:
        raise CheckpointError(
            f"transformers cannot express this model's {', '.join(fields)}: save it as one "
            ".safetensors file with `rtdetrv2 models convert` or checkpoint.save"
        )
    layers = model.config.evaluated_layers
    config = replace(model.config, decoder_layers=layers, eval_idx=-1)
    expected = _shapes(config)
    kept = {key: tensor for key, tensor in _whole(model).items() if key in expected}
    state = _backbone_counters(config, kept) | official_to_transformers(kept)
    folder = Path(folder)
    write_weights(folder / "model.safetensors", state, {"format": "pt"})
    write_json(folder / "config.json", config.to_dict())
    write_json(folder / "preprocessor_config.json", _preprocessor(config))


def _whole(model: RtDetrV2ForObjectDetection) -> dict[str, Tensor]:
    """All weights; a deploy form has fewer, from which no file could be read again."""
    state: dict[str, Tensor] = model.model.state_dict()
    if not _shapes(model.config).keys() <= state.keys():
        raise CheckpointError(
            "the model is a deploy form, which cannot be saved: save the one it was fused from"
        )
    return state


def _title(path: Path) -> str:
    """What a file or folder is called; files that are all called alike have their folder's name."""
    path = path.absolute()
    if path.is_dir():
        return path.name
    return path.parent.name if path.stem in FOLDER_STEMS else path.stem


def _own_metadata(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """What `save` wrote beside the weights; nothing for a file of others."""
    own = parse_json(metadata.get(_OWN, "{}"), path)
    if own.get("version", _VERSION) != _VERSION:
        raise CheckpointError(f"{path} was written by a newer version of rtdetrv2: update it")
    confidence = own.get("confidence")
    if not (confidence is None or (isinstance(confidence, int | float) and 0 <= confidence <= 1)):
        raise CheckpointError(f"{path} recommends {confidence!r} as confidence: not in 0..1")
    return own


def _build(
    config: RtDetrV2Config, state: dict[str, Tensor], path: Path
) -> RtDetrV2ForObjectDetection:
    model = _untrained(config)
    expected = model.model.state_dict()
    _check(state, {key: tuple(tensor.shape) for key, tensor in expected.items()}, path)
    fitting = {
        key: _made(key, config) if key.endswith(_NEEDLESS) else state[key].to(tensor.dtype)
        for key, tensor in expected.items()
    }
    model.model.load_state_dict(fitting | _counters(state, expected), assign=True)
    return model.eval()


def _untrained(config: RtDetrV2Config) -> RtDetrV2ForObjectDetection:
    """The network with random weights, the caller's random state untouched.

    The meta device would spare the weights, but its operations import TorchDynamo: 1.6 s against
    the 0.2 s that making R18's weights costs.
    """
    with torch.random.fork_rng(devices=[]):
        return RtDetrV2ForObjectDetection(config)


def _shapes(config: RtDetrV2Config) -> dict[str, tuple[int, ...]]:
    return {key: tuple(t.shape) for key, t in _untrained(config).model.state_dict().items()}


def _made(key: str, config: RtDetrV2Config) -> Tensor:
    if key.endswith("num_points_scale"):
        return torch.tensor([1 / n for n in config.num_points for _ in range(n)])
    return torch.tensor(0)  # a norm's count of batches


def _counters(state: State, expected: State) -> dict[str, Tensor]:
    """The counts that a file has: training goes on from them."""
    return {
        key: state[key]
        for key in expected
        if key.endswith("num_batches_tracked") and key in state and state[key].ndim == 0
    }


def _check(state: State, expected: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Requires every weight of the network, of its shape, and no other."""
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    misshapen = [
        f"{key} {tuple(state[key].shape)}, expected {shape}"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape and not key.endswith(_NEEDLESS)
    ]
    faults = [
        f"{len(names)} {fault}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for fault, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
        )
        if (names := [key for key in keys if not key.endswith(_NEEDLESS)])
    ]
    if faults:
        raise CheckpointError(f"the weights in {path} do not fit the network: {'; '.join(faults)}")


def _halved(key: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    if not half.isfinite().all():
        raise CheckpointError(f"{key} holds values beyond the range of float16")
    return half


def _backbone_counters(config: RtDetrV2Config, state: State) -> dict[str, Tensor]:
    """What transformers wants beside a ResNet's norms where they train, though it means nothing."""
    if config.freeze_backbone_batch_norms:
        return {}
    backbone = {key: t for key, t in state.items() if key.startswith("backbone.")}
    means = [key for key in official_to_transformers(backbone) if key.endswith(".running_mean")]
    return {
        f"{key.removesuffix('running_mean')}num_batches_tracked": torch.tensor(0) for key in means
    }


def _preprocessor(config: RtDetrV2Config) -> dict[str, Any]:
    height, width = config.image_size
    return {
        "image_processor_type": "RTDetrImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 2,  # bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": False,
        "do_pad": False,
        "do_convert_annotations": True,
        "format": "coco_detection",
    }
