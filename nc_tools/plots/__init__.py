"""Small pieces of SVG: marks, axes, and labels that do not overlap."""
