"""Tiles: the read plan, the grid, its table on disk, and the stream of pixels."""
