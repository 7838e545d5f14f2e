"""Records of a run in other formats."""
