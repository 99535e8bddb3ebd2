"""The benchmarks and frozen splits that come with the suite, and scripts that measure it."""
