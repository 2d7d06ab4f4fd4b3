"""The work pools that prefect.yaml's deployments run in; nothing here imports Prefect before it is needed."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect.client.schemas.actions import WorkPoolCreate

GPU = "gpu"
CPU = "cpu"
POOLS = {
    GPU: "Runs that load models: one at a time on each worker",
    CPU: "Runs that need no GPU: emit, the demo",
}
"""Each pool's name and what it is for."""


def new_pool(name: str) -> "WorkPoolCreate":
    """A pool of POOLS as it is made where it is missing: its workers start runs as processes of their machine."""
    # Slow to import, and needed once in the life of a server.
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    return WorkPoolCreate(name=name, description=POOLS[name], type=ProcessWorker.type, base_job_template=template)
