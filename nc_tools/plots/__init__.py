"""SVG marks, axes, label placement and the page sheet that all reports of nc_tools share."""
