"""Run shards of CPU work and vLLM servers on a Ray cluster.

cluster.py   where a run's work is done, connecting to the cluster, checking its nodes   (runner)
placed.py    vLLM servers that Ray places on nodes and restarts                          (runner.replicas)
"""
