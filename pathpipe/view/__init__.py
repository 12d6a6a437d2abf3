"""View: a local, read-only web page of a run's slides with what was found on them."""
