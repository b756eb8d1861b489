"""Turns a configuration file into settings (file, model) and into something that can run (check).

Or reports every fault of the file, each with its position. Opens the file it is given and the key file that it
names, and reads the environment it is given; starts nothing.
"""
