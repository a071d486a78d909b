"""`skerry demo`: the whole path on one machine, with real processes, real keys and real images."""
