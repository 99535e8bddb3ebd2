"""The methods that the suite compares, one file each."""
