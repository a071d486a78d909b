"""The contract between a device and its fleet server: pure data, no I/O.

Everything that crosses the wire is named here once: topics, messages, the bundle manifest, the
update states and the histogram in which latencies travel. Other folders import the modules that
they need; this package re-exports nothing, so that a reader sees where a name comes from.
"""
