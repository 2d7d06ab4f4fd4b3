"""When, where and again: the only folder that imports Prefect."""
