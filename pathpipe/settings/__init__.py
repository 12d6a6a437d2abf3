"""The settings of every stage: one field is one YAML key and one command-line option."""

from pathpipe.settings.base import Layer, Settings, merge, read_yaml, to_yaml
from pathpipe.settings.cluster import ClusterSettings
from pathpipe.settings.evaluate import EvaluateSettings
from pathpipe.settings.heatmap import HeatmapSettings
from pathpipe.settings.split import AuditSettings, SplitSettings
from pathpipe.settings.stages import (
    ENCODER_FILE_KINDS,
    HOW,
    PLACES,
    EmbedSettings,
    Execution,
    ExtractSettings,
    RunSettings,
    SlideSettings,
    TissueSettings,
)
from pathpipe.settings.tiles import TileSettings
from pathpipe.settings.train import TrainSettings

__all__ = [
    "ENCODER_FILE_KINDS",
    "HOW",
    "PLACES",
    "AuditSettings",
    "ClusterSettings",
    "EmbedSettings",
    "EvaluateSettings",
    "Execution",
    "ExtractSettings",
    "HeatmapSettings",
    "Layer",
    "RunSettings",
    "Settings",
    "SlideSettings",
    "SplitSettings",
    "TileSettings",
    "TissueSettings",
    "TrainSettings",
    "merge",
    "read_yaml",
    "to_yaml",
]
