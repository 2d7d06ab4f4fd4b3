"""A Ray cluster for shards of CPU work and for vLLM servers.

cluster.py   where a run's work goes, joining the cluster, what every node must see   (runner)
placed.py    vLLM servers that Ray places on nodes and restarts                       (runner.replicas)
"""
