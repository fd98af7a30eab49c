"""Any picture of a digit to 28x28 pixels in MNIST's form."""
