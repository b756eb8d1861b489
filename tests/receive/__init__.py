"""Receivers: what senders may do, and how they are answered."""
