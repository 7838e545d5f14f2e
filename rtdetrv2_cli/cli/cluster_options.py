"""Options about many machines, each once, as `options` has the others."""

import re
from typing import Annotated

from typer import BadParameter, Option

_CLUSTER = "Cluster"


def parse_cluster(text: str) -> str:
    """`local`, `auto` or `HOST:PORT`."""
    if text in ("local", "auto") or re.fullmatch(r"[^\s/:]+:[0-9]+|\[[0-9a-fA-F:]+\]:[0-9]+", text):
        return text
    raise BadParameter(f"{text!r} is neither 'local' nor 'auto' nor HOST:PORT")


Cluster = Annotated[
    str | None,
    Option(
        "--cluster",
        metavar="local|auto|HOST:PORT",
        parser=parse_cluster,
        help="Share the work out with Ray: among processes of this machine, on the cluster that it "
        "is part of, or on another; inputs are read where the workers are.",
        show_default=False,
        rich_help_panel=_CLUSTER,
    ),
]
Workers = Annotated[
    int | None,
    Option(
        "--workers",
        metavar="N",
        min=1,
        help="So many workers, each with a model of its own.",
        show_default="one for each GPU, or else for each core",
        rich_help_panel=_CLUSTER,
    ),
]
GpusPerWorker = Annotated[
    float | None,
    Option(
        "--gpus-per-worker",
        metavar="N",
        min=0,
        help="Of each worker, such as 0.5 for two on one GPU.",
        show_default="1 if there are any",
        rich_help_panel=_CLUSTER,
    ),
]
