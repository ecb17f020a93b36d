"""The application of the csa103 tutorial, its stage director and the verdict on what they did."""
