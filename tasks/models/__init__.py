"""Asking a model: engines, ledger, token budget, costs."""
