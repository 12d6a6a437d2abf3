"""Folds by patient, the training loop and its checkpoints."""
