"""The typed configuration: every key with its meaning and default; unknown keys are refused with a suggestion.

One file per section holds its keys and its own checks; `combinations` holds the checks that need several sections,
`load` reads a file and raises all problems at once.
"""

from segbench.core.schema import section_of
from segbench.experiment.config.data import Data, Phantom, Protocol
from segbench.experiment.config.downstream import Downstream, DownstreamModel, Initialisation
from segbench.experiment.config.experiment import Config
from segbench.experiment.config.external import External
from segbench.experiment.config.inference import Inference
from segbench.experiment.config.load import load_config, parse_config, read_config_file, schema
from segbench.experiment.config.network import Network
from segbench.experiment.config.section import ModelEntry
from segbench.experiment.config.statistics import Statistics
from segbench.experiment.config.training import Recipe, Training, Tuning
from segbench.experiment.config.upstream import Upstream

__all__ = [
    "Config",
    "Data",
    "Downstream",
    "DownstreamModel",
    "External",
    "Inference",
    "Initialisation",
    "ModelEntry",
    "Network",
    "Phantom",
    "Protocol",
    "Recipe",
    "Statistics",
    "Training",
    "Tuning",
    "Upstream",
    "load_config",
    "parse_config",
    "read_config_file",
    "schema",
    "section_of",
]
