"""The engines that answer requests."""
