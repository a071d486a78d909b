"""The audit trail: who changed what, before and after, in a chain of hashes for each tenant."""
