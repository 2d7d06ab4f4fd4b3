"""Run the project's Prefect server, workers and pages, and be told of trouble.

server.py         the project's own server: its settings, its address, its start ([tool.prefect] in pyproject.toml)
serve.py          `labelstill serve`: what is kept up, which deployments are registered (prefect.yaml), how it ends
processes.py      how a background program is found again, started and ended
pages.py          which pages of a run browsers may see, and their addresses (LABELSTILL_PAGES_*)
alerts.py         events of our own, and bringing automations onto the server
automations.yaml  which events alert, and when a run is taken for dead
prefect_plugin.py `prefect deployment run distill`, and two faults of Prefect 3.7.7 that are worked around
"""
