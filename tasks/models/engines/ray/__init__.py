"""Run shards of CPU work and vLLM servers on a Ray cluster.

cluster.py   the setting that chooses threads or Ray, connecting to the cluster, checking its nodes   (runner)
placed.py    vLLM servers that Ray places on nodes and restarts   (runner.replicas)
"""
