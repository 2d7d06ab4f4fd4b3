"""The measured sides of the benchmarks, each run in a process, and peers in an environment, of its own."""
