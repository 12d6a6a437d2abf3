"""One file a wrapper: what changes the training of any model."""
