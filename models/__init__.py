"""The networks of the comparison: one contract, one shared backbone, one file per baseline."""
