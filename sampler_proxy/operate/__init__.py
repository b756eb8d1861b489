"""Serves the people who operate the proxy: ports, status, reload, explanations, previews.

Nothing in the flow imports this room.
"""
