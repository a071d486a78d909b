"""From a built model to a release on the server: pack, inspect, sign, publish."""
