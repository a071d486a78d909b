"""Commands of the fleet: verified, taken once, run, answered once."""
