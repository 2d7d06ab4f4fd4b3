"""The Prefect server, its workers, pages, alerts and plugin."""
