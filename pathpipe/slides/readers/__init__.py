"""One file a reader; `slides/open.py` chooses among them."""
