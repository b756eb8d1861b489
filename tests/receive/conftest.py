"""Gives the fixtures of the engines' contract to the files that add to it."""

from .test_grpc_engines import engine_class, launch, server

__all__ = ["engine_class", "launch", "server"]
