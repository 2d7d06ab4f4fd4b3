"""vLLM as a child process of ours."""
