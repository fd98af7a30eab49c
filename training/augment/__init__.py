"""Data augmentation: random changes of images, and generated images such as letters and outliers."""
