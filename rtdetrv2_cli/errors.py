"""The errors this package raises on purpose; a message says what failed, why, and what to try.

RtDetrV2Error
├── UsageError              an option or a combination of options makes no sense
├── InputError              a source cannot be found, opened or decoded
│   └── TruncatedError      a source ended before its declared end
├── ModelError              a model or device is missing or unusable
│   ├── ModelNotFoundError  no model of that name or path
│   ├── CheckpointError     a weight file is damaged, hostile or does not fit
│   ├── DownloadError       weights could not be fetched
│   ├── DeviceError         a device, precision or engine is not available here
│   ├── ConversionError     an engine cannot take a network over from PyTorch
│   └── TrainingError       a network stopped learning
├── WorkerLostError         a worker of a cluster ended each time it was given a part of the work
├── StreamLostError         a live stream is gone and its retries are used up
└── OutputError             a result cannot be written
"""

from typing import Self


class RtDetrV2Error(Exception):
    """Base of every error raised on purpose."""

    #: Short machine-readable name, written to error records.
    code = "error"


class UsageError(RtDetrV2Error):
    """An option or a combination of options makes no sense."""

    code = "usage"


class InputError(RtDetrV2Error):
    """A source cannot be found, opened or decoded."""

    code = "decode_failed"


class TruncatedError(InputError):
    """A source ended before its declared end; what came before is good."""

    code = "truncated"


class ModelError(RtDetrV2Error):
    """A model or device is missing or unusable."""

    code = "model"


class ModelNotFoundError(ModelError):
    """No model of that name or path."""

    code = "model_not_found"


class CheckpointError(ModelError):
    """A weight file is damaged, hostile, or does not fit the network."""

    code = "checkpoint"


class DownloadError(ModelError):
    """Weights could not be fetched."""

    code = "download"


class DeviceError(ModelError):
    """A device, precision or engine is not available on this machine."""

    code = "device"


class ConversionError(ModelError):
    """An engine cannot take this network over from PyTorch."""

    code = "conversion"

    @classmethod
    def of(cls, engine: str, model: str, cause: Exception) -> Self:
        """With the first line of what an engine's tools say."""
        told = str(cause).strip().partition("\n")[0] or type(cause).__name__
        return cls(f"{engine} cannot take over {model} ({told}): use --engine torch")


class TrainingError(ModelError):
    """A network stopped learning: its loss is not a number any more."""

    code = "training"


class WorkerLostError(RtDetrV2Error):
    """A worker of a cluster ended each time it was given a part of the work."""

    code = "worker_lost"


class StreamLostError(RtDetrV2Error):
    """A live stream is gone and its retries are used up."""

    code = "stream_lost"


class OutputError(RtDetrV2Error):
    """A result cannot be written."""

    code = "output"
