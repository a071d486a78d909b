"""Roots of trust and first boot: keys, certificates, first metadata, claims."""
