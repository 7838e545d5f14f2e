"""The options of training, as `options` has those of all commands."""

from typing import Annotated, Literal

from typer import Argument, Option

_DATA, _START, _RECIPE = "Data", "Start", "Recipe"

DataOrNone = Annotated[
    str | None,
    Argument(
        metavar="DATA",
        help="Data set: a folder in COCO, YOLO or VOC form, or its YAML or JSON file.",
        show_default=False,
    ),
]
TrainSplit = Annotated[
    str,
    Option(
        "--split",
        metavar="NAME",
        help="Part to learn from; several with commas between them.",
        rich_help_panel=_DATA,
    ),
]
ValSplit = Annotated[
    str,
    Option(
        "--val-split",
        metavar="NAME",
        help="Part to measure on after each epoch; 'none' for none.",
        rich_help_panel=_DATA,
    ),
]
Strict = Annotated[
    bool,
    Option("--strict", help="Stop if anything in the data is faulty.", rich_help_panel=_DATA),
]
Check = Annotated[
    bool,
    Option(
        "--check/--no-check",
        help="Decode every picture first and look for doubles between the parts.",
        rich_help_panel=_DATA,
    ),
]
Fresh = Annotated[
    bool,
    Option("--fresh", help="Use the model's architecture only.", rich_help_panel=_START),
]
BackboneFile = Annotated[
    str | None,
    Option(
        "--backbone",
        metavar="FILE",
        help="Start from this backbone; the rest is new.",
        show_default=False,
        rich_help_panel=_START,
    ),
]
Change = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Change the configuration, as in num_queries=100; may be repeated.",
        rich_help_panel=_START,
    ),
]
Sampler = Annotated[
    Literal["bilinear", "discrete"] | None,
    Option(
        "--sampler",
        help="How attention samples; discrete keeps the sampling offsets as they are.",
        show_default="the model's own",
        rich_help_panel=_START,
    ),
]
Freeze = Annotated[
    int,
    Option(
        min=0,
        metavar="N",
        help="Keep the backbone's first N parts as they are: 1 is the stem, 2 the first stage "
        "as well.",
        rich_help_panel=_START,
    ),
]
Epochs = Annotated[
    int | None,
    Option(
        min=1,
        metavar="N",
        help="How often to go through the data.",
        show_default="the recipe's",
        rich_help_panel=_RECIPE,
    ),
]
PlainEpochs = Annotated[
    int | None,
    Option(
        min=0,
        metavar="N",
        help="Epochs at the end without strong augmentation.",
        show_default="the recipe's, at most a quarter",
        rich_help_panel=_RECIPE,
    ),
]
TrainBatch = Annotated[
    int | None,
    Option(
        "--batch",
        min=1,
        metavar="N",
        help="Pictures of a step, over all processes.",
        show_default="the recipe's",
        rich_help_panel=_RECIPE,
    ),
]
LearningRate = Annotated[
    float | None,
    Option(
        "--lr",
        min=0.0,
        metavar="RATE",
        help="Base learning rate; all groups follow it.",
        show_default="0.0001",
        rich_help_panel=_RECIPE,
    ),
]
ScheduleOption = Annotated[
    Literal["constant", "cosine"] | None,
    Option(
        "--schedule",
        help="Learning rate after warm-up.",
        show_default="the recipe's",
        rich_help_panel=_RECIPE,
    ),
]
WarmUp = Annotated[
    int | None,
    Option(
        min=0,
        metavar="STEPS",
        help="Steps of warm-up.",
        show_default="the recipe's, at most a tenth",
        rich_help_panel=_RECIPE,
    ),
]
MultiScale = Annotated[
    bool | None,
    Option(
        "--multi-scale/--no-multi-scale",
        help="Batches of many sizes.",
        show_default="the recipe's",
        rich_help_panel=_RECIPE,
    ),
]
Mosaic = Annotated[
    float,
    Option(
        min=0.0,
        max=1.0,
        metavar="0..1",
        help="Share of examples that are made of four pictures.",
        rich_help_panel=_RECIPE,
    ),
]
MinScore = Annotated[
    float,
    Option(
        min=0.0,
        max=1.0,
        metavar="0..1",
        help="Do not learn boxes that a detector drew with a lower score.",
        rich_help_panel=_RECIPE,
    ),
]
IgnoreRegions = Annotated[
    bool,
    Option(
        "--ignore-regions",
        help="Where such boxes and crowds are, tell nothing right from wrong; else they are "
        "background.",
        rich_help_panel=_RECIPE,
    ),
]
TrainDtype = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    Option(
        "--dtype",
        help="Precision of the forward pass; auto is fp16 on CUDA, bf16 on a CPU with "
        "instructions for it, else fp32. Weights are fp32.",
        rich_help_panel="Model",
    ),
]
Workers = Annotated[
    int | None,
    Option(
        min=0,
        metavar="N",
        help="Processes that prepare pictures.",
        show_default="1 on a CPU, half the cores beside a GPU",
        rich_help_panel=_DATA,
    ),
]
Cache = Annotated[
    bool,
    Option(
        "--cache/--no-cache",
        help="Keep decoded pictures, if there is room.",
        rich_help_panel=_DATA,
    ),
]
Seed = Annotated[
    int,
    Option(min=0, metavar="N", help="Of everything that is random.", rich_help_panel=_RECIPE),
]
EvalEvery = Annotated[
    int,
    Option(min=1, metavar="N", help="Measure after every N epochs.", rich_help_panel=_DATA),
]
RunFolderOption = Annotated[
    str, Option("-o", "--output", metavar="FOLDER", help="Of the run.", rich_help_panel="Output")
]
RunPlots = Annotated[
    bool, Option("--plots/--no-plots", help="Draw pictures of the run.", rich_help_panel="Output")
]
TensorBoard = Annotated[
    bool,
    Option(
        "--tensorboard/--no-tensorboard",
        help="Tell TensorBoard, if it is installed.",
        rich_help_panel="Output",
    ),
]
Resume = Annotated[
    str | None,
    Option(
        "--resume",
        metavar="RUN",
        help="Go on with the run in this folder.",
        show_default=False,
        rich_help_panel=_START,
    ),
]
