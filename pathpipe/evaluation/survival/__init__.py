"""Statistics of times that may be censored: `time` (P,) with `event` (P,) true where the event was seen."""
