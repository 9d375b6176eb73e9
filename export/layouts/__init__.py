"""What else a bundle's graphs can be arranged as: one module for each program that reads them."""
