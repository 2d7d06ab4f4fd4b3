"""Run the project's Prefect server, workers and page server, and send alerts.

server.py         find or start the project's Prefect server            ([tool.prefect] in pyproject.toml)
serve.py          `labelstill serve`: register deployments (prefect.yaml) and keep server and workers running
processes.py      find, start and stop background programs
pages.py          serve a run's pages to browsers                       (LABELSTILL_PAGES_*)
alerts.py         send our own events, and apply automations.yaml to the server
automations.yaml  which events send alerts, and when a run is marked Crashed
prefect_plugin.py `prefect deployment run distill`, and a run that survives a lost concurrency lease
"""
