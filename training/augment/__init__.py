"""Random changes to images, and images made from nothing: styles, fonts, outliers."""
