"""Turn a picture of a digit, in any common file format, into a 28x28 image like those of MNIST."""
