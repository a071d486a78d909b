"""Telemetry and events: taken in once each, acknowledged after commit, summed on request."""
