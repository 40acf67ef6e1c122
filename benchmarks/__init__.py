"""Measurements with ratios against a named baseline, taken in one run: `make bench`."""
