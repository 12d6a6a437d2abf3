"""Evaluation: arrays in, numbers with intervals out. No torch here."""
