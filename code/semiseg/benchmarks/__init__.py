"""From a benchmark file to its runs, and how they stand."""
