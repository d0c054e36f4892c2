"""The study in the SQL database: slots, leases, samplers, pruners, snapshots."""
