"""Signing keys wherever they are kept: named by a URI, opened with a secret that is no argument.

Also here is what the keys of certificate authorities show: their own certificates.
"""
