"""Figures as hand-written SVG; colours come from the page's style sheet."""
