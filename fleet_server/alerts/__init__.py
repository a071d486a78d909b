"""Alerts: rules over devices and their telemetry, silences, and signed notices by webhook."""
