"""All errors of the product, in one tree, by what they are about."""
