"""Following a flow run from the terminal, and telling a run that goes on from one whose process is gone."""

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterParentTaskRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    LogFilter,
    LogFilterFlowRunId,
    LogFilterTimestamp,
    TaskRunFilter,
    TaskRunFilterId,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, Log, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Cancelled, Crashed

POLL_SECONDS = 1.5
_PAGE = 200
_WARNING = 30
# The engine sends its log lines in batches: a line may arrive after later ones from another process.
_LATE = timedelta(seconds=20)
# Workers and runners write into a run's log too; of theirs only what went wrong is of interest in a terminal.
_OWN_LOGGERS = frozenset({"prefect.flow_runs", "prefect.task_runs"})
_WORKER_LABEL = "prefect.worker.name"
"""Set by every Prefect worker on a run before it starts the run's process."""
_CANCEL_SECONDS = 300.0
"""A worker imports the flow, for its hooks, between the end of a cancelled run and the mark: 53 s were seen."""
_AT_WORK = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]


def subflow_runs(client: SyncPrefectClient, run_id: UUID) -> list[FlowRun]:
    """All flow runs below a flow run, at any depth, oldest first."""
    found: dict[UUID, FlowRun] = {}
    level = [run_id]
    while level:
        parents = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=level))
        below = client.read_flow_runs(flow_run_filter=parents, sort=FlowRunSort.START_TIME_ASC)
        level = [run.id for run in below if run.id not in found]
        found |= {run.id: run for run in below}
    return list(found.values())


class LogTail:
    """The log lines of a growing set of flow runs, each given out once, in order of time."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client
        self._known: set[UUID] = set()
        self._seen: set[UUID] = set()
        self._latest = None

    def pull(self, runs: Iterable[UUID]) -> list[Log]:
        """What is new in `runs` since the last call."""
        new = set(runs) - self._known
        lines = self._read(new, None) if new else []
        if self._known:
            since = None if self._latest is None else LogFilterTimestamp(after_=self._latest - _LATE)
            lines += self._read(self._known, since)
        self._known |= new
        lines = sorted((line for line in lines if line.id not in self._seen), key=lambda line: line.timestamp)
        self._seen |= {line.id for line in lines}
        if lines:
            self._latest = max(line.timestamp for line in lines)
        return lines

    def _read(self, runs: set[UUID], after: LogFilterTimestamp | None) -> list[Log]:
        wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=sorted(runs)), timestamp=after)
        lines: list[Log] = []
        while True:
            page = self._client.read_logs(wanted, limit=_PAGE, offset=len(lines))
            lines += page
            if len(page) < _PAGE:
                return lines


# Said by Prefect of every task run and of every deployment's start, without saying which.
_CHATTER = ("Finished in state Completed", "Running 1 dep", "Executing dep", "Deployment step", "All deployment steps")


def print_line(line: Log) -> None:
    """Print a log line of a run as the terminal shows it, the chatter of worker and task runs left out."""
    if (line.name in _OWN_LOGGERS and not line.message.startswith(_CHATTER)) or line.level >= _WARNING:
        print(f"{line.timestamp.astimezone():%H:%M:%S}  {line.message}", flush=True)


def follow_run(
    client: SyncPrefectClient,
    run_id: UUID,
    *,
    on_state: Callable[[State], None],
    on_line: Callable[[Log], None] = print_line,
    tend: Callable[[FlowRun | None], None] | None = None,
) -> FlowRun:
    """Poll a flow run until its final state; its log lines and those of its subflows go to `on_line` as they come.

    `on_state` gets each new state of the run. `tend` is called between polls with the run, or with None when the
    server did not answer: the place to bring a dead server or worker back; what it raises ends the following.
    """
    tail, told, ended = LogTail(client), None, False
    while True:
        try:
            run = client.read_flow_run(run_id)
            for line in tail.pull([run_id, *(below.id for below in subflow_runs(client, run_id))]):
                on_line(line)
        except (httpx.TransportError, PrefectHTTPStatusError):
            if tend is None:
                raise
            tend(None)
            time.sleep(POLL_SECONDS)
            continue
        if run.state is not None and run.state.id != told:
            told = run.state.id
            on_state(run.state)
        if ended:
            return run
        # One more round after the final state: the last lines come a moment later.
        ended = run.state is not None and run.state.is_final()
        if not ended and tend is not None:
            tend(run)
        time.sleep(POLL_SECONDS)


def living_run_ids() -> set[UUID]:
    """The flow runs that some process of this machine is executing now."""
    living: set[UUID] = set()
    for process in psutil.process_iter():
        try:
            # The children of an engine inherit its environment; only the engine itself is the run.
            if "prefect.engine" in process.cmdline():
                living.add(UUID(process.environ()["PREFECT__FLOW_RUN_ID"]))
        except (psutil.Error, KeyError, ValueError, OSError):
            continue
    return living


def crash_rest(client: SyncPrefectClient, run_id: UUID) -> None:
    """Mark Crashed the subflow runs that a run left unfinished when its process ended; Prefect leaves them Running."""
    for below in subflow_runs(client, run_id):
        if below.state is None or not below.state.is_final():
            client.set_flow_run_state(below.id, Crashed(message="Its process is gone."), force=True)


def crash_stale_runs(client: SyncPrefectClient, pool: str, worker: str, *, worker_lives: bool) -> list[FlowRun]:
    """Mark Crashed what the server takes for running in `pool` though its process is gone; gives back those runs.

    Prefect has no eye for that itself once worker and engine died together: the run would stay Running for ever.
    Judged are the runs of the worker of that name, which is this machine's: another machine's processes can't be seen
    from here. While the worker lives, a Pending run may be on its way to a process and is left alone, and so is a
    Cancelling one for some minutes; after them it becomes Cancelled.
    """
    at_work = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_AT_WORK)))
    of_pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
    runs = client.read_flow_runs(flow_run_filter=at_work, work_pool_filter=of_pool)
    living = living_run_ids() if runs else set[UUID]()
    stale = [
        run
        for run in runs
        if run.id not in living
        and run.labels.get(_WORKER_LABEL) == worker
        and not (worker_lives and _is_in_good_hands(run))
        # An engine that ended between the two looks has left its final state.
        and client.read_flow_run(run.id).state_type in _AT_WORK
    ]
    for run in stale:
        crash_rest(client, run.id)
        final = Cancelled if run.state_type is StateType.CANCELLING else Crashed
        client.set_flow_run_state(run.id, final(message="Its process is gone."), force=True)
    return stale


def _is_in_good_hands(run: FlowRun) -> bool:
    """Whether a living worker will say itself what becomes of a run without a process."""
    if run.state is None or run.state_type is not StateType.CANCELLING:
        return run.state_type is StateType.PENDING
    return abs((datetime.now(UTC) - run.state.timestamp).total_seconds()) < _CANCEL_SECONDS


def crash_orphans(client: SyncPrefectClient) -> list[FlowRun]:
    """Mark Crashed the subflow runs that are at work though the run they belong to has ended; gives back those runs.

    A worker marks a run whose process was killed, and only that: its subflows would stay Running for ever.
    """
    at_work = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_AT_WORK)),
        parent_task_run_id=FlowRunFilterParentTaskRunId(is_null_=False),
    )
    orphans: list[FlowRun] = []
    for run in client.read_flow_runs(flow_run_filter=at_work):
        assert run.parent_task_run_id is not None, "asked for"
        of_task = TaskRunFilter(id=TaskRunFilterId(any_=[run.parent_task_run_id]))
        larger = client.read_flow_runs(task_run_filter=of_task)
        if larger and larger[0].state is not None and larger[0].state.is_final():
            client.set_flow_run_state(run.id, Crashed(message="The run it belongs to has ended."), force=True)
            orphans.append(run)
    return orphans
