"""Live streams recorded: drawn on or as they came, in files that play even if the run is killed."""
