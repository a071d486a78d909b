"""The fleet server: API, broker, ingest, releases, assignments and their signer.

Importing the package is light; `process` is the composition root and loads the libraries.
"""
