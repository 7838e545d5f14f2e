"""Workers as actors of Ray. The only place that knows it."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

from rtdetrv2_cli.errors import ModelError, UsageError
from rtdetrv2_cli.jobs.schedule import Done
from rtdetrv2_cli.jobs.units import Unit
from rtdetrv2_cli.jobs.worker import About, Outcome, Setup, Worker
from rtdetrv2_cli.machine import available_cores

_log = logging.getLogger(__name__)

_AT_ONCE: Final = 2
"""Units that a worker has: one to be at, and one to go on with while the answer is fetched."""
_STILLBIRTHS: Final = 3
"""So many workers in a row may end before they are ready."""
_TELL_AFTER: Final = 30.0
"""Seconds without a worker after which that is said."""
LOCAL: Final = "local"
"""Address of a cluster that is this machine alone, and ends with the run."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where workers are to be, and how many."""

    address: str
    """`LOCAL`, `auto` for the cluster that this machine is part of, or `HOST:PORT` of one."""
    workers: int | None = None
    """None: one for each GPU, or else for each core."""
    gpus: float | None = None
    """Of each worker; None: one if there are any."""


@dataclass(slots=True, eq=False)
class _Member:
    """A worker, wherever it is."""

    actor: Any
    is_ready: bool = False
    is_lost: bool = False
    tickets: list[int] = field(default_factory=list)
    """Of the units that it has, in order."""


class _Actor:
    """A worker that is made when it is asked about: only so its errors reach the one who asks."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup

    def about(self) -> About:
        self._worker = Worker(self._setup)
        return self._worker.about()

    def work(
        self, unit: Unit, suffixes: Mapping[str, str], crops: Mapping[str, str] | None
    ) -> Outcome:
        return self._worker.work(unit, suffixes, crops)


class RayPool:
    """A pool whose workers are actors, each with a model of its own.

    In place of one that is lost another is made, on whichever node has room for it. Units go only
    to those that are ready.

    Args:
        cluster: Where.
        setup: What every worker is told; it is given how many cores each has.
        suffixes: By input name that of its annotated file.
        crops: What inputs are called in the folder of crops; None: nothing is cut out.

    Raises:
        UsageError: Ray is not installed, no cluster answers, or it has no room.
        ModelError: The model is missing or unusable there, or workers end at once.
    """

    def __init__(
        self,
        cluster: Cluster,
        setup: Callable[[int], Setup],
        suffixes: Mapping[str, str],
        crops: Mapping[str, str] | None,
    ) -> None:
        self._suffixes = suffixes
        self._crops = crops
        self._members: list[_Member] = []
        self._calls: dict[Any, tuple[int, _Member]] = {}
        self._greetings: dict[Any, _Member] = {}
        self._stillbirths = 0
        self._alone_since = monotonic()
        self._reference: About | None = None
        self._ray = _connected(cluster)
        try:
            room = _Room.of(cluster, self._ray.nodes())
            self.workers = room.workers
            made = self._ray.remote(_Actor)
            self._class = made.options(num_cpus=room.cores, num_gpus=room.gpus, max_restarts=0)
            self._setup = self._ray.put(setup(room.cores))
            for _ in range(room.workers):
                self._make()
            self.about = self._first_ready()
            """What the workers are."""
        except BaseException:
            self.close()
            raise

    def has_room(self) -> bool:
        return any(each.is_ready and len(each.tickets) < _AT_ONCE for each in self._members)

    def give(self, ticket: int, unit: Unit) -> None:
        ready = [each for each in self._members if each.is_ready]
        member = min(ready, key=lambda each: len(each.tickets))
        names = [item.name for item in unit.inputs]
        suffixes = {name: self._suffixes[name] for name in names if name in self._suffixes}
        crops = None if self._crops is None else {name: self._crops[name] for name in names}
        member.tickets.append(ticket)
        call = member.actor.work.remote(unit, suffixes, crops)
        self._calls[call] = (ticket, member)

    def wait(self, seconds: float) -> Sequence[Done]:
        waiting = [*self._calls, *self._greetings]
        ready, _ = self._ray.wait(waiting, num_returns=1, timeout=seconds)
        more, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        done = []
        for ref in dict.fromkeys((*ready, *more)):
            if ref in self._greetings:
                self._greet(ref)
            else:
                done.append(self._answer(ref))
        self._tell_if_alone()
        return done

    def close(self) -> None:
        self._ray.shutdown()

    def _first_ready(self) -> About:
        while (about := self._reference) is None:
            self.wait(1.0)
        return about

    def _make(self) -> None:
        """Makes a worker, which tells of itself when it is ready."""
        member = _Member(self._class.remote(self._setup))
        self._members.append(member)
        self._greetings[member.actor.about.remote()] = member

    def _greet(self, ref: Any) -> None:
        member = self._greetings.pop(ref)
        about = self._fetched(ref)
        if about is None:
            self._stillbirths += 1
            if self._stillbirths >= _STILLBIRTHS:
                raise ModelError(
                    f"{self._stillbirths} workers in a row ended as soon as they were started: "
                    "see Ray's logs, and whether there is enough memory"
                )
            self._replace(member)
            return
        self._stillbirths, member.is_ready = 0, True
        reference = self._reference = self._reference or about
        if about.causes != reference.causes:
            raise ModelError(
                "workers differ, and so would what they find: "
                f"{_told(reference, about)}; install the same everywhere, or say --engine, --dtype"
            )

    def _answer(self, ref: Any) -> Done:
        ticket, member = self._calls.pop(ref)
        outcome = self._fetched(ref)
        is_first = member.tickets[0] == ticket
        if outcome is not None:
            member.tickets.remove(ticket)
            return Done(ticket, outcome)
        self._replace(member)
        return Done(ticket, None, was_begun=is_first)

    def _fetched(self, ref: Any) -> Any:
        """What a worker has answered; None where it was lost.

        Raises:
            RtDetrV2Error: What it has raised.
        """
        from ray.exceptions import RayError, RayTaskError

        try:
            return self._ray.get(ref)
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            _log.debug("a worker is lost: %s", error)
            return None

    def _replace(self, member: _Member) -> None:
        if not member.is_lost:
            member.is_lost, member.is_ready = True, False
            self._members.remove(member)
            self._make()

    def _tell_if_alone(self) -> None:
        if any(each.is_ready for each in self._members):
            self._alone_since = monotonic()
        elif monotonic() - self._alone_since > _TELL_AFTER:
            self._alone_since = monotonic()
            _log.warning("no worker is ready: waiting until the cluster has room for one")


def _told(first: About, second: About) -> str:
    pairs = zip(first.causes, second.causes, strict=True)
    one, other = next(pair for pair in pairs if pair[0] != pair[1])
    return f"{one} here, {other} there"


@dataclass(frozen=True, slots=True)
class _Room:
    """What each worker gets of a cluster."""

    workers: int
    cores: int
    gpus: float

    @classmethod
    def of(cls, cluster: Cluster, nodes: Sequence[Mapping[str, Any]]) -> "_Room":
        """As many cores for each as go round on the nodes as they are.

        Raises:
            UsageError: There is no room for so many workers.
        """
        alive = [node["Resources"] for node in nodes if node["Alive"]]
        gpus = cluster.gpus
        if gpus is None:
            gpus = 1.0 if any(node.get("GPU") for node in alive) else 0.0

        def fit(cores: int) -> int:
            """How many workers of so many cores there is room for."""
            counts = []
            for node in alive:
                by_cores = int(node.get("CPU", 0) // cores)
                by_gpus = int(node.get("GPU", 0) // gpus + 1e-6) if gpus else by_cores
                counts.append(min(by_cores, by_gpus))
            return sum(counts)

        most = fit(1)
        workers = most if cluster.workers is None else cluster.workers
        if not 1 <= workers <= most:
            each = f" with {gpus:g} GPUs each" if gpus else ""
            raise UsageError(f"the cluster has room for {most} workers{each}, not for {workers}")
        cores = 1
        while fit(cores + 1) >= workers:
            cores += 1
        return cls(workers, cores, gpus)


def _connected(cluster: Cluster) -> Any:
    """The module `ray`, which has found the cluster, or has started one that is this machine.

    It tells nobody of it.

    Raises:
        UsageError: It is not installed, or there is no such cluster.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as it will be, it warns
    try:
        import ray
    except ImportError as error:
        raise UsageError("--cluster needs Ray: pip install 'rtdetrv2[ray]'") from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if cluster.address == LOCAL:
        ray.init("local", num_cpus=available_cores(), include_dashboard=False, **quiet)
        return ray
    try:
        ray.init(address=cluster.address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"no Ray cluster answers at {cluster.address}: "
            "start one with 'ray start --head', or use --cluster local"
        ) from error
    return ray
