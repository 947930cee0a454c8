"""How useful frozen features are for other classes: probes, neighbors, class means, rankings."""
