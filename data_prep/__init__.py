"""The data sets that the suite can prepare, one file each."""
