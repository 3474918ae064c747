"""segbench: a benchmark harness for universal models of 3D medical image segmentation."""

__version__ = "0.1.0"
