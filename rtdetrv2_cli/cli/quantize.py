"""`rtdetrv2 quantize`: a model that runs in int8. Imports late: `rtdetrv2 --help` reads it, too."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Context, Exit, Option

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.cli import options as opt
from rtdetrv2_cli.errors import UsageError

if TYPE_CHECKING:
    from rtdetrv2_cli.cli.signals import Stop
    from rtdetrv2_cli.cli.trial import Trial
    from rtdetrv2_cli.infer.engine import Engine
    from rtdetrv2_cli.media.inputs import Input
    from rtdetrv2_cli.model.checkpoint import LoadedModel
    from rtdetrv2_cli.train.data.dataset import Dataset
    from rtdetrv2_cli.train.measure.evaluate import Evaluation
    from rtdetrv2_cli.types import Size

_LITTLE = 0.9
"""Agreement below which it is worth a warning."""
_FEW = 32
"""Pictures; with fewer, scores of large objects were seen to drift by 0.1 and more."""
_MOST_LOST = 0.01
"""AP that quantization may cost without a warning."""

Calibration = Annotated[
    list[str],
    Option(
        "--calibration",
        metavar="SOURCE",
        help="Pictures like those it will see: a folder, a file, a pattern, a video; may be "
        "repeated.",
        show_default=False,
        rich_help_panel="Input",
    ),
]
Pictures = Annotated[
    int,
    Option(
        min=1,
        metavar="N",
        help="Calibrate with N of them at most, evenly spread.",
        rich_help_panel="Input",
    ),
]
Val = Annotated[
    str | None,
    Option(
        "--val",
        metavar="DATA",
        help="Measure AP before and after on the pictures of this data set, as 'rtdetrv2 val'.",
        show_default=False,
        rich_help_panel="Input",
    ),
]
Split = Annotated[
    str, Option(metavar="NAME", help="Part of the data set of --val.", rich_help_panel="Input")
]
Output = Annotated[
    Path | None,
    Option(
        "-o",
        "--output",
        metavar="FILE",
        help="File to write, NAME.xml; NAME.bin is written beside it.",
        show_default="the model's name, .int8.xml",
        rich_help_panel="Output",
    ),
]


def quantize(
    context: Context,
    calibration: Calibration,
    model: opt.Model = "roadusers",
    output: Output = None,
    pictures: Pictures = 300,
    val: Val = None,
    split: Split = "val",
    imgsz: opt.ImageSize = None,
    offline: opt.Offline = False,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    json: opt.Json = False,
    log_format: opt.LogFormatOption = "text",
    no_progress: opt.NoProgress = False,
) -> None:
    """Make a model that runs in int8, quicker and nearly as good, with OpenVINO on a CPU.

    rtdetrv2 quantize -m r18vd --calibration pictures : writes r18vd.int8.xml and r18vd.int8.bin

    rtdetrv2 quantize -m r18vd --calibration pictures --val data : also tells AP before and after

    rtdetrv2 detect -m r18vd.int8.xml clip.mp4 : uses it
    """
    from rtdetrv2_cli.cli import export, trial, usage
    from rtdetrv2_cli.cli.signals import stop_on_signal
    from rtdetrv2_cli.export.calibration import choose_inputs
    from rtdetrv2_cli.export.quantize import check_packages

    console.set_up(quiet=quiet, verbose=verbose, log_format=log_format)
    usage.refuse_contradictions(context)
    if val is None and "split" in usage.given_by_hand(context):
        raise UsageError("--split is of no use: it is a part of the data set of --val")
    target = export.target_file(
        model, output, (".xml", ".bin"), overwrite=overwrite, ending=".int8"
    )
    inputs = choose_inputs(calibration, pictures)
    dataset = None if val is None else trial.open_part(val, split)
    shown = console.wants_progress(quiet=quiet, no_progress=no_progress)
    check_packages()
    loaded, size = export.load(model, imgsz, offline=offline, no_progress=not shown)
    if dataset is not None:
        trial.common_classes(model, loaded.model.config.labels, dataset)
    with stop_on_signal() as stop:
        work = _Work(loaded, size, target, stop, shows_progress=shown)
        work.read(inputs, pictures)
        work.quantize(dataset)
    if json:
        console.print_data(work.content())
    raise Exit(work.exit_code)


class _Work:
    """The steps, one after the other, and what is said of them."""

    def __init__(
        self,
        loaded: "LoadedModel",
        size: "Size | None",
        target: Path,
        stop: "Stop",
        *,
        shows_progress: bool,
    ) -> None:
        from rtdetrv2_cli.types import Size

        self._loaded = loaded
        self._size = size or Size(*loaded.model.config.image_size)
        self._target = target
        self._stop = stop
        self._shown = shows_progress
        self._failed: list[str] = []
        self._trials: list[tuple[Trial, Evaluation]] = []

    @property
    def exit_code(self) -> int:
        """5 where pictures could not be read."""
        return 5 if self._failed or any(trial.failed for trial, _ in self._trials) else 0

    def read(self, inputs: "Sequence[Input]", count: int) -> None:
        """Reads the calibration pictures."""
        from rtdetrv2_cli.export.calibration import read_pictures
        from rtdetrv2_cli.types import Failure, Frame

        with self._steps({"reading": len(inputs)}) as advance:

            def follow(item: Frame | Failure) -> None:
                if isinstance(item, Failure):
                    self._failed.append(item.name)
                    told = console.facts(source=item.name, code=item.error.code)
                    console.log.error("%s: %s", item.name, item.error, extra=told)
                advance("reading")

            self._pixels = read_pictures(inputs, self._size, count, follow)
        if len(self._pixels) < _FEW:
            pictures = console.counted(len(self._pixels), "calibration picture")
            console.log.warning("%s: with some hundreds it would find more", pictures)

    def quantize(self, dataset: "Dataset | None") -> None:
        """Makes the files, and says how good they are."""
        from rtdetrv2_cli.export.quantize import Watch, compared, quantize

        count = len(self._pixels)
        with self._steps({"calibrating": count, "comparing": compared(count)}) as advance:
            watch = Watch(
                lambda: advance("calibrating"),
                lambda: advance("comparing"),
                lambda *engines: self._measure(dataset, engines),
            )
            self._made = quantize(
                self._loaded, self._pixels, self._target, size=self._size, watch=watch
            )
        console.log.info("wrote %s", " and ".join(map(str, self._made.paths)))
        self._tell_agreement()
        self._tell_ap()

    def content(self) -> dict[str, Any]:
        """What `--json` prints."""
        agreement = self._made.agreement
        figures = [evaluation.figures for _, evaluation in self._trials]
        names = ("before", "after")
        return {
            "files": [str(path) for path in self._made.paths],
            "bytes": sum(path.stat().st_size for path in self._made.paths),
            "model": {"name": self._loaded.info.name, "sha256": self._loaded.info.sha256},
            "imgsz": list(self._size),
            "pictures": len(self._pixels),
            "failed": self._failed,
            "agreement": {
                "pictures": agreement.pictures,
                "before": agreement.first,
                "after": agreement.second,
                "both": agreement.common,
            },
            "val": {name: dict(each) for name, each in zip(names, figures, strict=True)}
            if figures
            else None,
        }

    @contextmanager
    def _steps(self, steps: "Mapping[str, int]") -> "Iterator[Callable[[str], None]]":
        """A bar, and the end of the run where a signal asks to stop."""
        from rtdetrv2_cli.cli import trial

        with console.steps_bar(steps, shown=self._shown) as advance:

            def follow(step: str) -> None:
                advance(step)
                trial.end_if_stopped(self._stop)

            yield follow

    def _measure(self, dataset: "Dataset | None", engines: "Sequence[Engine]") -> None:
        if dataset is None:
            return
        from rtdetrv2_cli.cli import trial
        from rtdetrv2_cli.train.measure.evaluate import evaluate

        for engine in engines:
            detector = trial.open_detector(dataset, engine)
            tried = trial.run_detector(dataset, detector, self._stop, shows_progress=self._shown)
            self._trials.append((tried, evaluate(tried.dataset, tried.found)))

    def _tell_agreement(self) -> None:
        found, name = self._made.agreement, self._loaded.info.name
        pictures = console.counted(found.pictures, "calibration picture")
        if found.share is None:
            console.log.warning(
                "%s finds nothing in %s, nor does what became of it: nothing could be compared",
                *(name, pictures),
            )
            return
        words = "in %s %s finds %s, it in int8 %d; %d of them are the same"
        told = (pictures, name, console.counted(found.first, "object"), found.second, found.common)
        console.log.info(words, *told)
        if found.share < _LITTLE:
            console.log.warning(
                "that is little: calibrate with more pictures like those it is meant for, and "
                "measure with --val"
            )

    def _tell_ap(self) -> None:
        if not self._trials:
            return
        (tried, before), (_, after) = self._trials
        first, second = (each.figures["ap"] for each in (before, after))
        pictures = console.counted(len(tried.dataset), "picture")
        console.log.info("AP on %s: %.3f, in int8 %.3f", pictures, first, second)
        if first - second > _MOST_LOST:
            console.log.warning("int8 costs %.1f points of AP", 100 * (first - second))
