"""Workers that the work of a run is shared out among, in place of a detector. Knows no option."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from rtdetrv2_cli.cli import capacity, console, job, outputs
from rtdetrv2_cli.cli.console import counted
from rtdetrv2_cli.cli.plan import Plan
from rtdetrv2_cli.cli.report import Report
from rtdetrv2_cli.jobs.crew import Crew
from rtdetrv2_cli.jobs.ray_pool import Cluster, RayPool
from rtdetrv2_cli.jobs.units import Shares, without_picture
from rtdetrv2_cli.jobs.worker import About, Setup
from rtdetrv2_cli.media.paths import CONTAINERS, bare_paths

if TYPE_CHECKING:
    from rtdetrv2_cli.media.convert.convert import CocoIds

__all__ = ["Cluster", "Setup", "Team", "call_together", "run_together"]


@dataclass(slots=True)
class Team:
    """Workers that are ready, and what they are."""

    pool: RayPool
    about: About
    setup: Setup
    seconds: float
    """Until the first of them was ready."""
    crew: Crew | None = None

    def share_out(self, plan: Plan) -> Crew:
        """What reads and detects, in place of a source and of a detector.

        Args:
            plan: The workers are let go when all of it is done.
        """
        parts = {name: done.part for name, done in plan.progress.items()}
        firsts = {n: without_picture(part.first) for n, part in parts.items() if part is not None}
        reached = {name: done.reached for name, done in plan.progress.items()}
        media = plan.media.items()
        shares = Shares(
            self.pool.workers,
            self.setup.selection,
            self.about.batch_size,
            frozenset(name for name, path in media if path.suffix.lower() not in CONTAINERS),
            reached,
            firsts,
        )
        self.crew = Crew(
            self.pool,
            self.about,
            shares.units(plan.todo),
            workers=self.pool.workers,
            firsts=firsts,
        )
        return self.crew

    def facts(self) -> dict[str, Any]:
        """What `run.json` says of it."""
        told: dict[str, Any] = {
            "workers": self.pool.workers,
            "start_seconds": round(self.seconds, 3),
        }
        if (crew := self.crew) is not None:
            seconds = {stage: round(spent, 3) for stage, spent in crew.seconds.items()}
            told |= {"units": crew.units, "workers_lost": crew.lost, "stages": seconds}
        return {"cluster": told}


def call_together(cluster: Cluster, plan: Plan, setup: Setup) -> Team:
    """Starts workers, and waits for the first of them.

    Args:
        cluster: Where.
        plan: Says which files are made, and whether there is one batch or many.
        setup: What all workers are told.

    Raises:
        UsageError: There is no such cluster, or it has no room.
        ModelError: A worker cannot load the model.
    """
    suffixes = {name: path.suffix for name, path in plan.media.items()}
    crops = None if plan.crops is None else bare_paths([item.name for item in plan.inputs])

    def told(cores: int) -> Setup:
        requests = capacity.requests_at_once(plan, setup.detecting["batch"], cores)
        return replace(
            setup,
            detecting={**setup.detecting, "requests": requests},
            most=capacity.most_at_once(plan),
            drawing=setup.drawing if plan.media else None,
            cores=cores,
        )

    start = perf_counter()
    pool = RayPool(cluster, told, suffixes, crops)
    team = Team(pool, pool.about, setup, perf_counter() - start)
    where = "this machine" if cluster.address == "local" else cluster.address
    workers = counted(pool.workers, "worker")
    console.log.info("%s on %s, after %.1f s", workers, where, team.seconds)
    return team


def run_together(
    cluster: Cluster,
    plan: Plan,
    setup: Setup,
    options: Mapping[str, Any],
    *,
    max_errors: int | None,
    shows_progress: bool,
    coco_ids: "CocoIds",
) -> tuple[int, Report]:
    """The run of a plan among workers; its exit code, and its report.

    Args:
        cluster: Where the workers are.
        plan: What is read and written, by this machine: workers need no place to write.
        setup: What all workers are told.
        options: All options of the command by name.
        max_errors: As of `pipeline.run`.
        shows_progress: Whether a bar is shown.
        coco_ids: As of `job.derive`.

    Raises:
        UsageError: There is no such cluster, or it has no room.
        ModelError: A worker cannot load the model.
    """
    team = call_together(cluster, plan, setup)
    job.check_coco_ids(plan, team.about.labels, coco_ids)
    report = job.open_report(plan, team.about, options, team.facts)
    job.take_up(report, setup.selection, setup.encode)
    crew = team.share_out(report.plan)
    sinks = outputs.open_sinks(report, team.about.labels, None, setup.encode, is_made=True)
    code = job.execute(
        report,
        crew,
        crew,
        sinks,
        max_errors=max_errors,
        shows_progress=shows_progress,
        derived=lambda: job.derive(plan, coco_ids),
    )
    return code, report
