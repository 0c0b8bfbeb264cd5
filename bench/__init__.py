"""The project's benchmarks: each figure is a ratio to something real, measured in the same run."""
