"""Rate controllers: the contract that all of them keep, and simulated traffic that shows whether a target is held."""
