"""Finds secrets in texts: a file for each family of detectors, and the catalogue of all of them (`catalogue.py`)."""
