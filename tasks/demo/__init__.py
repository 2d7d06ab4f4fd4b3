"""The demo: synthetic shop screens and dialogues, laptop-size Qwen2-VL checkpoints, and their evaluation."""
