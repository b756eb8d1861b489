"""Turns a configuration file into settings (file, model) and into something that can run (check).

Or reports every fault of the file, each with its position. Reads the file and the environment that are passed in;
starts nothing.
"""
