"""Data set files, splits and sampling."""
