"""Building blocks of the plots in reports: SVG shapes, axes, placement of labels, and the HTML page's style."""
