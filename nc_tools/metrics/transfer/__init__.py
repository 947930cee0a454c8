"""How useful frozen features are for other classes: probes, neighbors, class means, and rankings by collapse."""
