"""Data acquisition for beamlines and observatories: one network of data nodes, from packets to archive."""
