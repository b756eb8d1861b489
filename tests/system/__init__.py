"""The whole proxy as a process, between real senders and real back ends."""
