"""Runs of a comparison as tasks of a Ray cluster; Ray is imported only where a cluster is used."""
