"""Turns a configuration file into settings (file, model) and into something that can run (check).

Or says every fault of the file, each with its position. Reads the file and the environment it is given; starts nothing.
"""
