"""Devices: enrolment, identity, what they report and how far their updates are."""
