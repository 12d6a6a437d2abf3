"""The feature store: whole slides as HDF5, half-made ones as rows."""
