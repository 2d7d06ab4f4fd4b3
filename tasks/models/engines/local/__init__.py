"""Qwen-VL by transformers in this process."""
