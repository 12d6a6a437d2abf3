"""Feature files of other tools: one module a layout."""
